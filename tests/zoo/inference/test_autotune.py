"""`optimize="inference"`: the same features from other forms of modules, taken only where they were measured faster."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zoo
from support.peer import captions, images, randomized, small_overrides, small_pair
from zoo.inference.autotune import measured, optimize_for_inference
from zoo_core.config.block import BlockConfig
from zoo_core.errors import InputError, PluginError
from zoo_core.nn.attention import Attention
from zoo_core.nn.inference_forms import InferenceForm, PackedLinear, forms_of, twin
from zoo_core.nn.transformer import Transformer

VIT, TEXT = "last block for the pooled token", "last block for the pooled token"
BLOCK, PACKED = "activations and sums in place", "matrix packed for oneDNN"
FOLDED, LAST = "folded batch norms, channels last", "channels last"


@pytest.fixture(autouse=True)
def own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    return tmp_path


def forms_win(calls: Sequence[Any]) -> list[float]:
    """A clock by which every form is twice as fast as its module."""
    return [2.0] + [1.0] * (len(calls) - 1)


def forms_lose(calls: Sequence[Any]) -> list[float]:
    return [1.0] + [2.0] * (len(calls) - 1)


def optimized(model: Any, measure: Any = forms_win) -> Any:
    """Return a model that shares the weights of another and has every form there is."""
    other = twin(model)
    optimize_for_inference(other, measure)
    return other


def names(model: Any) -> set[tuple[str, str]]:
    return {(one.tower, one.form) for one in model.optimizations}


NATIVE = [
    ("vit-b32", {("image", VIT), ("image", BLOCK), ("text", TEXT), ("text", BLOCK)}),
    ("vit-b32-quickgelu", {("image", VIT), ("image", BLOCK), ("text", TEXT), ("text", BLOCK)}),
    ("rn50", {("image", FOLDED), ("text", TEXT), ("text", BLOCK)}),
    ("rn50-quickgelu", {("image", FOLDED), ("text", TEXT), ("text", BLOCK)}),
    ("vit-h14-clipa", {("image", BLOCK), ("text", TEXT), ("text", BLOCK)}),
]


@pytest.mark.parametrize(("name", "expected"), NATIVE)
def test_every_form_of_a_native_tower_gives_the_features_of_the_peer(name: str, expected: set[tuple[str, str]]) -> None:
    ours, theirs = small_pair(name)
    fast = optimized(ours)
    assert names(fast) == expected | {("image", PACKED), ("text", PACKED)}
    with torch.inference_mode():
        for side, given in (("image", images(ours, 3)), ("text", captions(ours, 3))):
            features = getattr(fast, f"encode_{side}")(given)
            torch.testing.assert_close(features, getattr(theirs, f"encode_{side}")(given), rtol=0, atol=1e-5)
            torch.testing.assert_close(features, getattr(ours, f"encode_{side}")(given), rtol=0, atol=1e-5)


@pytest.mark.parametrize("backbone", ["convnext_atto", "resnet18", "vit_tiny_patch16_224"])
def test_every_form_over_a_timm_backbone_gives_the_features_of_the_plain_tower(backbone: str) -> None:
    overrides = [f"vision.name={backbone}", "vision.image_size=[32,32]", "text.layers=1", "text.width=64"]
    if backbone.startswith("vit"):
        overrides += ["vision.image_size=[224,224]"]
    model: Any = zoo.build("convnext-base", overrides=overrides, towers=["image"])
    randomized(model)
    fast = optimized(model)
    assert ("image", LAST) in names(fast)
    assert backbone == "resnet18" or ("image", PACKED) in names(fast)
    with torch.inference_mode():
        given = images(model, 2)
        torch.testing.assert_close(fast.encode_image(given), model.encode_image(given), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"pool_type": "first", "causal": False},
        {"pool_type": "last"},
        {"pool_type": "last", "class_token": True, "pad_id": 0},
        {"pool_type": "argmax", "causal": False, "pad_id": 0, "pad_mask": True},
        {"block": {"qk_norm": True}},
        {"block": {"scaled_cosine": True, "scale_heads": True, "scale_attn_inner": True}},
        {"block": {"scale_attn": True, "scale_fc": True}, "ls_init_value": 0.1, "activation": "quick_gelu"},
    ],
)
def test_every_pooling_and_block_of_a_text_tower_keeps_its_features(changes: dict[str, Any]) -> None:
    text = {"tower": "clip-transformer", "context_length": 12, "vocab_size": 1024, "width": 24, "heads": 2, "layers": 3}
    vision = {"tower": "vit", "image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16}
    config = {"model": "custom-text-clip", "embed_dim": 16, "vision": vision, "text": text | changes}
    tokenizer = {"type": "clip-bpe", "vocab_size": 1024}
    model: Any = zoo.build(config | {"tokenizer": tokenizer, "preprocess": {"type": "image"}}, towers=["text"])
    randomized(model)
    fast = optimized(model)
    assert {("text", TEXT), ("text", BLOCK), ("text", PACKED)} <= names(fast)
    with torch.inference_mode():
        given = captions(model, 5)
        torch.testing.assert_close(fast.encode_text(given), model.encode_text(given), rtol=0, atol=1e-5)
        torch.testing.assert_close(fast.encode_text(given[:0]), model.encode_text(given[:0]))


def test_what_stands_behind_the_pooled_token_is_left_out_of_a_text() -> None:
    model: Any = zoo.build("vit-b32", overrides=small_overrides("vit-b32"), towers=["text"])
    fast = optimized(model)
    lengths: list[int] = []
    fast.text.transformer.resblocks[0].register_forward_pre_hook(lambda _, given: lengths.append(given[0].shape[1]))
    text = captions(model, 2)
    with torch.inference_mode():
        fast.encode_text(text)
    assert lengths == [int(text.argmax(dim=-1).max()) + 1]
    assert lengths[0] < model.context_length


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_one_row_of_attention_is_that_row_of_the_whole(masked: bool, causal: bool) -> None:
    torch.manual_seed(0)
    attention = Attention(16, 2, BlockConfig(qk_norm=True))
    x, row = torch.randn(3, 5, 16), torch.tensor([4, 0, 2])
    mask = torch.rand(3, 1, 5, 5) > 0.3 if masked else None
    if mask is not None:
        mask |= torch.eye(5, dtype=torch.bool)
    whole = attention(x, causal and not masked, mask)
    torch.testing.assert_close(attention.forward_row(x, row, causal and not masked, mask), whole[range(3), row])


def test_other_outputs_of_an_optimized_model_are_those_of_the_plain_one() -> None:
    model, _ = small_pair("vit-b32")
    fast = optimized(model)
    with torch.inference_mode():
        given = {"image": images(model), "text": captions(model)}
        expected, found = model.forward_intermediates(**given), fast.forward_intermediates(**given)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        for side, tower in (("image", "visual"), ("text", "text")):
            tokens = getattr(fast, tower).forward_tokens(given[side])
            torch.testing.assert_close(tokens, getattr(model, tower).forward_tokens(given[side]), rtol=0, atol=1e-5)


def test_gradients_of_the_image_flow_through_an_optimized_tower() -> None:
    model, _ = small_pair("vit-b32-quickgelu")
    fast, gradients = optimized(model), []
    for one in (model, fast):
        image = images(model).requires_grad_()
        (gradient,) = torch.autograd.grad(one.encode_image(image).square().sum(), image)
        gradients.append(gradient)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["vit-b32-quickgelu", "rn50"])
def test_bfloat16_features_point_where_those_of_float32_do(name: str) -> None:
    model, _ = small_pair(name)
    fast = optimized(copy.deepcopy(model).to(torch.bfloat16))
    with torch.inference_mode():
        for side, given in (("image", images(model, 3)), ("text", captions(model, 3))):
            expected, found = (getattr(one, f"encode_{side}")(given) for one in (model, fast))
            assert found.dtype is torch.bfloat16
            assert F.cosine_similarity(found.float(), expected).min() > 0.999


def test_nothing_is_applied_where_no_form_is_faster() -> None:
    model, _ = small_pair("rn50")
    kinds = [type(module) for module in model.modules()]
    slow = optimized(model, forms_lose)
    assert slow.optimizations == ()
    assert [type(module) for module in slow.modules()] == kinds


def test_forms_that_are_faster_alone_and_slower_in_the_tower_are_not_applied() -> None:
    model, _ = small_pair("vit-b32")
    whole: set[int] = set()

    def slower_together(calls: Sequence[Any]) -> list[float]:
        outputs = [call() for call in calls]
        whole.add(outputs[0].ndim)
        return [1.0, 2.0] if outputs[0].ndim == 2 else [2.0, 1.0]  # features against tokens

    slow = optimized(model, slower_together)
    assert whole == {2, 3}
    assert slow.optimizations == ()


def settings() -> dict[str, Any]:
    backends = torch.backends
    return {
        "threads": torch.get_num_threads(),
        "precision": torch.get_float32_matmul_precision(),
        "mkldnn": (backends.mkldnn.enabled, backends.mkldnn.deterministic),
        "cudnn": (backends.cudnn.enabled, backends.cudnn.benchmark, backends.cudnn.allow_tf32),
        "tf32": backends.cuda.matmul.allow_tf32,
        "sdpa": (backends.cuda.flash_sdp_enabled(), backends.cuda.math_sdp_enabled()),
        "dtype": torch.get_default_dtype(),
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "random": torch.get_rng_state().tolist(),
    }


def test_settings_of_the_process_stay_as_they_are() -> None:
    model, _ = small_pair("rn50")
    before = settings()
    fast = optimized(model, measured)
    assert settings() == before
    fast.encode_image(images(model))
    assert settings() == before


def test_choices_are_measured_once_and_remembered(own_memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counting(given: Sequence[Any]) -> list[float]:
        calls.append(len(given))
        return forms_win(given)

    monkeypatch.setattr("zoo.inference.autotune.measured", counting)
    first: Any = zoo.build("vit-b32", overrides=small_overrides("vit-b32"), optimize="inference")
    assert calls
    measurements = len(calls)
    second: Any = zoo.build("vit-b32", overrides=small_overrides("vit-b32"), optimize="inference")
    assert len(calls) == measurements
    assert second.optimizations == first.optimizations
    assert [type(one) for one in second.modules()] == [type(one) for one in first.modules()]
    zoo.build("vit-b32", overrides=small_overrides("vit-b32"), optimize="inference", dtype=torch.bfloat16)
    assert len(calls) > measurements
    assert len(list((own_memory / "inference").iterdir())) == 4


CHOICE = '{"path": "%s", "form": "no such form", "gain": 2.0}'


@pytest.mark.parametrize(
    "damage",
    [
        *("", "[{}]", "7", "[" * 100_000, '{"choices": null}', '{"choices": [{"path": 5, "form": "x", "gain": 2.0}]}'),
        *(f'{{"choices": [{CHOICE % path}]}}' for path in ("tower", "tower.nowhere", "", "elsewhere", "tower..")),
    ],
)
def test_a_memory_that_cannot_be_used_is_measured_anew(
    damage: str, own_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.inference.autotune.measured", forms_win)
    build = {"overrides": small_overrides("rn50"), "towers": ["image"], "optimize": "inference"}
    first: Any = zoo.build("rn50", **build)
    (file,) = (own_memory / "inference").iterdir()
    whole = json.loads(file.read_text())
    file.write_text(damage)
    assert zoo.build("rn50", **build).optimizations == first.optimizations
    assert json.loads(file.read_text()) == whole


def test_choices_of_which_one_cannot_be_taken_change_nothing(own_memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.inference.autotune.measured", forms_win)
    build = {"overrides": small_overrides("rn50"), "towers": ["image"], "optimize": "inference"}
    first: Any = zoo.build("rn50", **build)
    (file,) = (own_memory / "inference").iterdir()
    whole = json.loads(file.read_text())
    lost = {"path": "tower.nowhere", "form": "x", "gain": 2.0}
    file.write_text(json.dumps({"choices": [*whole["choices"], lost]}))
    assert zoo.build("rn50", **build).optimizations == first.optimizations
    assert json.loads(file.read_text()) == whole


def test_one_tower_and_saved_weights_can_be_optimized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.inference.autotune.measured", forms_win)
    model: Any = randomized(zoo.build("vit-b32", overrides=small_overrides("vit-b32")))
    folder = zoo.save(model, tmp_path / "model")
    fast: Any = zoo.build(folder, optimize="inference", towers=["text"])
    assert fast.visual is None
    assert {one.tower for one in fast.optimizations} == {"text"}
    with torch.inference_mode():
        text = captions(model)
        torch.testing.assert_close(fast.encode_text(text), model.encode_text(text), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("act", "what"),
    [
        (lambda model: model.train(), "trained"),
        (lambda model: model.requires_grad_(), "trained"),
        (lambda model: model.state_dict(), "saved"),
        (lambda model: model.nested_state_dict(), "saved"),
        (lambda model: model.own_state_dict(), "saved"),
        (lambda model: model.load_state_dict({}), "given other weights"),
        (lambda model: model.to(torch.float64), "moved or cast"),
        (lambda model: model.half(), "moved or cast"),
    ],
)
def test_an_optimized_model_refuses_what_it_cannot_do(act: Any, what: str) -> None:
    model: Any = zoo.build("vit-b32", overrides=small_overrides("vit-b32"))
    fast = optimized(model)
    with pytest.raises(InputError, match=f'built with optimize="inference" cannot be {what}'):
        act(fast)
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    fast.eval()


def test_an_optimized_model_is_not_saved_and_leaves_nothing(tmp_path: Path) -> None:
    fast = optimized(zoo.build("vit-b32", overrides=small_overrides("vit-b32")))
    with pytest.raises(InputError, match="cannot be saved"):
        zoo.save(fast, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_optimize_takes_inference_only() -> None:
    with pytest.raises(InputError, match=re.escape("optimize must be 'inference' or None, found 'training'")):
        zoo.build("vit-b32", optimize="training")  # type: ignore[arg-type]


class Wrong(nn.Module):
    """Offers a form that gives something else."""

    def __init__(self, form: nn.Module) -> None:
        super().__init__()
        self.form = [form]

    def forward(self, x: Tensor) -> Tensor:
        return x

    def inference_forms(self) -> Iterator[InferenceForm]:
        yield InferenceForm("another function", lambda: self.form[0])


@pytest.mark.parametrize(
    ("form", "message"), [(nn.Tanh(), "differs by"), (nn.Flatten(0), "gives no tensor of the same shape")]
)
def test_a_form_that_gives_other_numbers_is_an_error(form: nn.Module, message: str) -> None:
    model: Any = zoo.build("vit-b32", overrides=small_overrides("vit-b32"))
    model.visual.ln_pre = Wrong(form)
    model.visual.pool_type = "avg"  # so that the tower itself offers nothing
    with pytest.raises(PluginError, match=f"Wrong: its form 'another function' {message}"):
        optimize_for_inference(model, forms_win)


def test_a_tower_that_refuses_the_sample_is_left_as_it_is_and_said_so() -> None:
    model: Any = zoo.build("vit-b32", overrides=small_overrides("vit-b32"))

    def refuse(_: Tensor) -> Tensor:
        raise InputError("no")

    model.text.forward = refuse
    with pytest.warns(UserWarning, match="the text tower is left as it is: it refuses a sample to measure with: no"):
        optimize_for_inference(model, forms_win)
    assert {one.tower for one in model.optimizations} == {"image"}


def test_a_packed_matrix_computes_what_the_linear_layer_does_and_has_its_gradient() -> None:
    linear = nn.Linear(32, 48)
    (form,) = forms_of(linear)
    packed = form.make()
    assert isinstance(packed, PackedLinear)
    x = torch.randn(2, 5, 32)
    with torch.no_grad():
        torch.testing.assert_close(packed(x), linear(x), rtol=0, atol=1e-5)
        assert packed(x[:0]).shape == (0, 5, 48)
        with torch.autocast("cpu", torch.bfloat16):
            assert packed(x).dtype is torch.bfloat16
    (gradient,) = torch.autograd.grad(packed(x.requires_grad_()).sum(), x)
    torch.testing.assert_close(gradient, torch.autograd.grad(linear(x).sum(), x)[0])


def test_a_torch_without_the_operators_offers_no_packed_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert forms_of(nn.Linear(4, 4)) == []


def test_a_twin_shares_every_weight_and_no_module() -> None:
    stack = Transformer(16, 2, 2)
    other = twin(stack)
    assert [one.data_ptr() for one in other.parameters()] == [one.data_ptr() for one in stack.parameters()]
    assert not {id(one) for one in other.modules()} & {id(one) for one in stack.modules()}


def test_measuring_takes_every_call_in_turn_and_tells_the_slower_one() -> None:
    order: list[str] = []
    small, large = torch.randn(8, 8), torch.randn(400, 400)

    def quick() -> None:
        order.append("quick")
        small @ small

    def slow() -> None:
        order.append("slow")
        large @ large

    first, second = measured([quick, slow])
    assert first < second
    assert order == ["quick", "slow"] * (len(order) // 2)
