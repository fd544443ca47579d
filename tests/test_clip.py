"""What CLIP and CustomTextCLIP do beyond the numbers: arguments, names, layouts, errors, folders."""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import convert_weights_to_lp
from torch import Tensor, nn

import zoo
from peer import captions, images, peer_names, published, randomized, small_overrides, tiny_arguments
from zoo import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from zoo_core.errors import CapabilityError, ConfigError, InputError, SaveError
from zoo_core.interfaces import VisionTower
from zoo_core.transformer import LayerNorm, QuickGELU

KINDS = [CLIP, CustomTextCLIP]
ARCHITECTURE: dict[str, Any] = {
    "model": "clip",
    "embed_dim": 16,
    "vision": {
        "tower": "vit",
        "image_size": 32,
        "patch_size": 16,
        "width": 32,
        "layers": 2,
        "head_width": 16,
    },
    "text": {
        "tower": "clip-transformer",
        "context_length": 12,
        "vocab_size": 1024,
        "width": 24,
        "heads": 2,
        "layers": 2,
    },
    "tokenizer": {"type": "clip-bpe", "vocab_size": 1024},
    "preprocess": {"type": "image"},
}
TEXT_PARTS = ("transformer", "token_embedding", "positional_embedding", "ln_final", "text_projection")


def tiny(kind: Any = CLIP, **changes: Any) -> Any:
    return randomized(kind(**tiny_arguments(**changes))).eval()


@pytest.fixture(params=KINDS, ids=["CLIP", "CustomTextCLIP"])
def model(request: pytest.FixtureRequest) -> Any:
    return tiny(request.param)


def outputs(model: Any) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        return model.encode_image(images(model)), model.encode_text(captions(model))


def assert_same_outputs(model: Any, other: Any) -> None:
    for one, two in zip(outputs(model), outputs(other), strict=True):
        assert torch.equal(one, two)


# Constructor arguments


def test_the_logit_scale_starts_at_its_argument_and_comes_out_exponentiated() -> None:
    assert tiny().logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    model = tiny(init_logit_scale=math.log(10), output_dict=True)
    assert model.logit_scale.item() == pytest.approx(math.log(10))
    assert model(images(model), captions(model))["logit_scale"].item() == pytest.approx(10)


def test_a_logit_bias_is_a_fourth_output_and_an_offset_of_the_logits() -> None:
    plain, biased = tiny(), tiny(init_logit_bias=-10.0)
    arguments = images(plain), captions(plain)
    assert plain.logit_bias is None
    assert len(plain(*arguments)) == 3
    assert len(biased(*arguments)) == 4
    assert biased(*arguments)[3].requires_grad
    assert biased(*arguments)[3].item() == biased.logit_bias.item()
    for one, other in zip(biased.get_logits(*arguments), plain.get_logits(*arguments), strict=True):
        torch.testing.assert_close(one, other - 10)
    biased.output_dict = plain.output_dict = True
    assert list(plain(*arguments)) == ["image_features", "text_features", "logit_scale"]
    assert list(biased(*arguments)) == ["image_features", "text_features", "logit_scale", "logit_bias"]


def test_similarity_is_the_cosine_and_probabilities_are_as_the_model_was_trained() -> None:
    plain, biased = randomized(tiny()).eval(), randomized(tiny(init_logit_bias=-1.5), seed=1).eval()
    for model in (plain, biased):
        image, text = images(model), captions(model, 3)
        with torch.no_grad():
            one, other = model.encode_image(image).double(), model.encode_text(text).double()
            cosines = torch.stack([torch.cosine_similarity(row, other) for row in one])
            torch.testing.assert_close(model.similarity(image, text).double(), cosines, rtol=0, atol=1e-5)
            logits = cosines * model.logit_scale.double().exp()
            if model is plain:
                expected, scoring, wrong = logits.exp() / logits.exp().sum(dim=1, keepdim=True), "softmax", "sigmoid"
            else:
                expected, scoring, wrong = 1 / (1 + (-logits - model.logit_bias).exp()), "sigmoid", "softmax"
            assert model.scoring == scoring
            for found in (model.probabilities(image, text), model.probabilities(image, text, scoring=scoring)):
                torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)
        with pytest.raises(InputError, match=f"its scores are a {scoring}, not a {wrong}"):
            model.probabilities(image, text, scoring=wrong)
        with pytest.raises(InputError, match="scoring must be 'softmax' or 'sigmoid', found 'cosine'"):
            model.probabilities(image, text, scoring="cosine")
    with pytest.raises(InputError, match="one alone always wins"):
        plain.probabilities(images(plain), captions(plain, 1))
    assert biased.probabilities(images(biased), captions(biased, 1)).shape == (len(images(biased)), 1)


@pytest.mark.parametrize(("nonscalar", "shape"), [(False, ()), (True, (1,))])
def test_nonscalar_logit_scale_gives_scale_and_bias_one_dimension(nonscalar: bool, shape: tuple[int, ...]) -> None:
    model = tiny(init_logit_bias=-1.0, nonscalar_logit_scale=nonscalar, output_dict=True)
    output, state = model(images(model), captions(model)), model.state_dict()
    for name in ("logit_scale", "logit_bias"):
        assert output[name].shape == state[name].shape == shape
        assert getattr(model, name).shape == (1,)  # FSDP shards no scalars


@pytest.mark.parametrize("kind", KINDS)
def test_quick_gelu_reaches_both_towers_and_gives_the_peers_features(kind: Any) -> None:
    theirs: Any = randomized(getattr(open_clip, kind.__name__)(**tiny_arguments(quick_gelu=True))).eval()
    ours = kind(**tiny_arguments(quick_gelu=True)).eval()
    ours.load_state_dict(theirs.state_dict())
    assert sum(isinstance(module, QuickGELU) for module in ours.modules()) == 6
    assert not any(isinstance(module, nn.GELU) for module in ours.modules())
    for one, other in zip(outputs(ours), outputs_of_peer(theirs, ours), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def outputs_of_peer(theirs: Any, ours: Any) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        return theirs.encode_image(images(ours)), theirs.encode_text(captions(ours))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_cast_dtype_casts_matrices_and_leaves_norms_and_logit_scale(dtype: torch.dtype) -> None:
    model = tiny(cast_dtype=dtype, init_logit_bias=-1.0)
    norms = {id(one) for module in model.modules() if isinstance(module, LayerNorm) for one in module.parameters()}
    assert len(norms) == 2 * (2 * 6 + 3)
    for name, parameter in model.named_parameters():
        kept = id(parameter) in norms or name in ("logit_scale", "logit_bias")
        assert parameter.dtype == (torch.float32 if kept else dtype), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_cast_dtype_is_as_near_to_float32_as_the_peers_precision(dtype: torch.dtype) -> None:
    exact: Any = randomized(open_clip.CLIP(**tiny_arguments())).eval()
    theirs: Any = open_clip.CLIP(**tiny_arguments(cast_dtype=dtype)).eval()
    theirs.load_state_dict(exact.state_dict())
    convert_weights_to_lp(theirs, dtype)
    ours = CLIP(**tiny_arguments(cast_dtype=dtype)).eval()
    ours.load_state_dict(exact.state_dict())
    image, text = images(ours, 16), captions(ours, 16)
    with torch.inference_mode():
        for encode, given in (("encode_image", (image, image.to(dtype))), ("encode_text", (text, text))):
            reference = getattr(exact, encode)(given[0], normalize=True)
            found = getattr(ours, encode)(given[0], normalize=True)
            expected = getattr(theirs, encode)(given[1], normalize=True)
            assert found.dtype == expected.dtype == dtype
            error, allowed = ((one.float() - reference).norm(dim=-1).mean() for one in (found, expected))
            assert error < 2 * allowed
            assert F.cosine_similarity(found.float(), expected.float()).min() > 0.999


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embed_dim": 0}, "embed_dim: must be at least 1, found 0"),
        ({"embed_dim": "512"}, "embed_dim: expected a whole number"),
        ({"quick_gelu": "yes"}, "quick_gelu: expected true or false"),
        ({"init_logit_scale": math.nan}, "init_logit_scale: expected a finite number"),
        ({"init_logit_scale": 100.0}, "init_logit_scale: must be at most 20"),
        ({"init_logit_bias": math.inf}, "init_logit_bias: expected a finite number"),
        ({"cast_dtype": torch.int8}, "cast_dtype must be None, float32, float16 or bfloat16"),
        ({"cast_dtype": "bf16"}, "cast_dtype must be None, float32, float16 or bfloat16"),
        ({"vision_cfg": {"patchsize": 16}}, "did you mean 'patch_size'"),
        ({"vision_cfg": {"image_size": 30, "patch_size": 16}}, "16 does not divide the image height 30"),
        ({"vision_cfg": {"width": 100}}, "head_width: 64 does not divide the width 100"),
        ({"text_cfg": {"width": 100, "heads": 3}}, "heads: 3 does not divide the width 100"),
        ({"text_cfg": {"pool_type": "max"}}, "pool_type: 'max' is not known"),
        ({"text_cfg": None}, "expected a section with the key 'tower'"),
        ({"vision_cfg": CLIPTextCfg()}, "expected a section with the key 'tower'"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, InputError)) as caught:
        CLIP(**tiny_arguments() | changes)
    assert message in str(caught.value)


def test_configs_and_mappings_build_the_same_model() -> None:
    arguments = tiny_arguments()
    configs = {
        "vision_cfg": CLIPVisionCfg(**arguments["vision_cfg"]),
        "text_cfg": CLIPTextCfg(**arguments["text_cfg"]),
    }
    models = []
    for given in (arguments, arguments | configs):
        torch.manual_seed(0)
        models.append(CLIP(**given).eval())
    assert_same_outputs(*models)


# Names


def test_attributes_have_their_published_names() -> None:
    model = tiny()
    assert model.context_length == 12
    assert model.vocab_size == 1024
    assert model.token_embedding.weight.shape == (1024, 24)
    assert model.positional_embedding.shape == (12, 24)
    assert model.text_projection.shape == (24, 16)
    assert model.visual.proj.shape == (32, 16)
    assert len(model.transformer.resblocks) == len(model.visual.transformer.resblocks) == 3
    assert model.transformer.resblocks[0].attn.in_proj_weight.shape == (72, 24)
    assert model.transformer.resblocks[0].attn.in_proj_bias.shape == (72,)
    assert isinstance(model.ln_final, nn.LayerNorm)
    for name in TEXT_PARTS:
        assert getattr(model, name) is getattr(model.text, name)


def test_every_parameter_exists_once() -> None:
    model = tiny()
    assert len(list(model.parameters())) == len(list(model.named_parameters(remove_duplicate=False)))
    assert len(model.state_dict()) == len(list(model.parameters()))


def test_a_published_name_that_is_set_changes_the_tower() -> None:
    model = tiny()
    before = model.encode_text(captions(model))
    model.positional_embedding = nn.Parameter(torch.randn(12, 24))
    assert model.text.positional_embedding is model.positional_embedding
    assert "positional_embedding" not in dict(model.named_parameters())
    assert torch.equal(model.state_dict()["positional_embedding"], model.positional_embedding)
    assert not torch.allclose(model.encode_text(captions(model)), before)
    model.ln_final = LayerNorm(24)
    assert model.text.ln_final is model.ln_final
    assert "ln_final" not in dict(model.named_children())


def test_custom_text_clip_shows_its_text_tower_only_under_text() -> None:
    model = tiny(CustomTextCLIP)
    for name in TEXT_PARTS:
        assert not hasattr(model, name)
        assert hasattr(model.text, name)


def test_an_unknown_attribute_is_named_with_its_class() -> None:
    with pytest.raises(AttributeError, match=r"'CLIP' object has no attribute 'ln_finale'"):
        _ = tiny().ln_finale


def test_no_weight_decay_names_what_the_peer_names() -> None:
    theirs: Any = open_clip.CLIP(**tiny_arguments())
    assert theirs.no_weight_decay() <= tiny().no_weight_decay()
    for kind in KINDS:
        model = tiny(kind)
        known = {*model.state_dict(), *dict(model.named_parameters())}
        assert model.no_weight_decay() <= known
        assert len({id(one) for name, one in model.named_parameters() if name in model.no_weight_decay()}) == 3


# State dicts


def layouts(model: Any) -> dict[str, dict[str, Tensor]]:
    nested = tiny(CustomTextCLIP).state_dict().keys()
    flat = {key.removeprefix("text."): key for key in nested}
    state = {key.removeprefix("text."): value for key, value in model.state_dict().items()}
    return {"published": state, "nested": {flat[key]: value for key, value in state.items()}}


def test_each_class_writes_its_own_layout() -> None:
    clip, custom = tiny(CLIP), tiny(CustomTextCLIP)
    assert clip.state_dict().keys() == layouts(clip)["published"].keys()
    assert custom.state_dict().keys() == clip.nested_state_dict().keys() == layouts(clip)["nested"].keys()
    assert {key.partition(".")[0] for key in clip.state_dict()} == {"logit_scale", "visual", *TEXT_PARTS}
    assert {key.partition(".")[0] for key in custom.state_dict()} == {"logit_scale", "visual", "text"}


@pytest.mark.parametrize("layout", ["published", "nested"])
@pytest.mark.parametrize("assign", [False, True], ids=["copy", "assign"])
def test_either_layout_loads_strictly(model: Any, layout: str, assign: bool) -> None:
    source = randomized(tiny(), seed=1)
    state = layouts(source)[layout]
    keys = list(state)
    model.load_state_dict(state, assign=assign)
    assert list(state) == keys, "the caller's dict is left alone"
    assert_same_outputs(model, source)


def test_a_key_in_both_layouts_is_refused(model: Any) -> None:
    state = model.state_dict() | {
        "ln_final.weight": torch.ones(24),
        "text.ln_final.weight": torch.zeros(24),
    }
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"ln_final.weight"'):
        model.load_state_dict(state)


def test_an_attention_key_in_both_spellings_is_refused(model: Any) -> None:
    block = "visual.transformer.resblocks.0.attn.in_proj"
    state = model.state_dict() | {f"{block}.weight": torch.zeros(96, 32)}
    with pytest.raises(RuntimeError, match=r"in_proj_weight"):
        model.load_state_dict(state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ln_final.weight": None}, r"Missing key.*ln_final.weight"),
        ({"ln_finale.weight": torch.ones(1)}, r"Unexpected key.*ln_finale.weight"),
        ({"logit_bias": torch.ones(())}, r"Unexpected key.*logit_bias"),
        ({"ln_final.weight": torch.ones(25)}, r"size mismatch for text.ln_final.weight"),
        ({"logit_scale": torch.ones(2)}, r"size mismatch for logit_scale"),
        (
            {"visual.transformer.resblocks.0.attn.in_proj_bias": None},
            r"Missing key.*resblocks.0.attn.in_proj",
        ),
        ({"visual.transformer.resblocks.9.ln_1.weight": torch.ones(32)}, r"Unexpected key.*resblocks.9.ln_1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_state_dict_that_does_not_fit_is_refused(change: dict[str, Tensor | None], message: str) -> None:
    model = tiny()
    state = {key: value for key, value in (model.state_dict() | change).items() if value is not None}
    with pytest.raises(RuntimeError, match=message):
        model.load_state_dict(state)


@pytest.mark.parametrize(("source", "target"), [(False, True), (True, False)], ids=["to-one-element", "to-scalar"])
def test_logit_scale_and_bias_load_from_either_shape(source: bool, target: bool) -> None:
    state = tiny(nonscalar_logit_scale=source, init_logit_scale=1.0, init_logit_bias=-2.0).state_dict()
    model = tiny(nonscalar_logit_scale=target, init_logit_bias=0.0)
    model.load_state_dict(state)
    assert (model.logit_scale.item(), model.logit_bias.item()) == (1.0, -2.0)
    assert model.state_dict()["logit_scale"].shape == ((1,) if target else ())


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_inside_another_module_keeps_its_layout(kind: Any) -> None:
    outer, other = (nn.ModuleDict({"clip": tiny(kind)}) for _ in range(2))
    assert list(outer.state_dict()) == [f"clip.{key}" for key in outer["clip"].state_dict()]
    randomized(outer, seed=1)
    other.load_state_dict(outer.state_dict())
    assert_same_outputs(outer["clip"], other["clip"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_without_memory_takes_the_tensors_that_it_is_given(kind: Any) -> None:
    source = tiny(kind)
    state = source.state_dict()
    with torch.device("meta"):
        model = kind(**tiny_arguments()).eval()
    model.load_state_dict(state, assign=True)
    assert_same_outputs(model, source)
    addresses = {value.data_ptr() for value in state.values()}
    assert {parameter.data_ptr() for parameter in model.parameters()} == addresses


# Copies


def test_a_deep_copy_is_equal_and_its_own(model: Any) -> None:
    twin = copy.deepcopy(model)
    assert_same_outputs(model, twin)
    before = outputs(model)
    randomized(twin, seed=1)
    assert torch.equal(outputs(model)[1], before[1])
    assert {id(one) for one in twin.parameters()}.isdisjoint(id(one) for one in model.parameters())


def test_a_model_survives_pickling(model: Any) -> None:
    assert_same_outputs(model, pickle.loads(pickle.dumps(model)))


def test_a_state_dict_survives_torch_save_and_a_weights_only_load(model: Any) -> None:
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = randomized(type(model)(**tiny_arguments()), seed=1).eval()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert_same_outputs(model, other)


# Precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_the_whole_model_follows_a_cast(model: Any, dtype: torch.dtype) -> None:
    reference = outputs(model)
    model.to(dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    for found, expected in zip(outputs(model), reference, strict=True):
        assert found.dtype == dtype
        assert F.cosine_similarity(found.float(), expected).min() > 0.998
    image, text = images(model), captions(model)
    assert all(one.isfinite().all() for one in model(image.to(dtype), text))


def test_an_image_of_any_floating_dtype_is_taken(model: Any) -> None:
    image = images(model)
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        features = model.encode_image(image.to(dtype))
        assert features.dtype == torch.float32
        torch.testing.assert_close(features, model.encode_image(image.to(dtype).float()))


def test_autocast_runs_in_the_lower_precision(model: Any) -> None:
    reference = outputs(model)
    with torch.autocast("cpu", torch.bfloat16):
        found = outputs(model)
    for one, other in zip(found, reference, strict=True):
        assert one.dtype == torch.bfloat16
        assert F.cosine_similarity(one.float(), other).min() > 0.99


# Locking


def norms_of(tower: nn.Module) -> set[str]:
    return {
        f"{name}.{kind}"
        for name, module in tower.named_modules()
        if isinstance(module, LayerNorm)
        for kind in ("weight", "bias")
    }


def trainable(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def test_norms_of_a_locked_text_tower_can_stay_trainable(model: Any) -> None:
    model.lock_text_tower(freeze_layer_norm=False)
    assert trainable(model.text) == norms_of(model.text)
    assert len(trainable(model.visual)) == len(list(model.visual.parameters()))


def test_locking_again_with_more_groups_unlocks_them(model: Any) -> None:
    model.lock_image_tower()
    assert not trainable(model.visual)
    model.lock_image_tower(unlocked_groups=1)
    assert trainable(model.visual) == {"proj"}
    model.lock_image_tower(unlocked_groups=99)
    assert len(trainable(model.visual)) == len(list(model.visual.parameters()))


@pytest.mark.parametrize("lock", ["lock_image_tower", "lock_text_tower"])
def test_a_negative_number_of_groups_is_refused(model: Any, lock: str) -> None:
    with pytest.raises(InputError, match="must not be negative, found -1"):
        getattr(model, lock)(-1)
    assert all(parameter.requires_grad for parameter in model.parameters())


class ConvolutionTower(VisionTower):
    """The least image tower, with a batch norm in it."""

    image_size = (8, 8)
    output_dim = 16

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 16, 3)
        self.norm = nn.BatchNorm2d(16)

    def forward(self, image: Tensor) -> Tensor:
        return self.norm(self.convolution(image)).mean((2, 3))


@pytest.mark.parametrize("frozen", [False, True], ids=["moving", "frozen"])
def test_freeze_bn_stats_keeps_running_statistics_in_training(frozen: bool) -> None:
    model = tiny()
    model.visual = ConvolutionTower()
    model.lock_image_tower(freeze_bn_stats=frozen)
    model.train()
    before = model.visual.norm.running_mean.clone()
    model.encode_image(torch.randn(4, 3, 8, 8))
    assert torch.equal(before, model.visual.norm.running_mean) == frozen


def test_a_tower_without_a_capability_refuses_it_and_nothing_is_changed() -> None:
    model = tiny()
    model.visual = ConvolutionTower()
    for ask in (
        lambda: model.lock_image_tower(unlocked_groups=1),
        lambda: model.set_grad_checkpointing(),
        lambda: model.forward_intermediates(torch.randn(1, 3, 8, 8)),
        lambda: model.visual.forward_tokens(torch.randn(1, 3, 8, 8)),
    ):
        with pytest.raises(CapabilityError, match="ConvolutionTower does not claim"):
            ask()
    assert not model.transformer.grad_checkpointing
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_gradient_checkpointing_recomputes_every_block(model: Any) -> None:
    calls: list[nn.Module] = []
    for tower in (model.visual, model.text):
        for block in tower.transformer.resblocks:
            block.attn.register_forward_hook(lambda module, *_: calls.append(module))
    for enable, times in ((True, 2), (False, 1)):
        calls.clear()
        model.set_grad_checkpointing(enable)
        image, text, _ = model.train()(images(model), captions(model))
        (image @ text.T).sum().backward()
        assert len(calls) == 6 * times


# Initialisation


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Let `torch.empty` hold NaN, so that a parameter that nobody sets shows."""
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def assert_drawn(build: Any) -> None:
    torch.manual_seed(7)
    first = build()
    torch.empty(1_000_000).fill_(3.0)
    torch.manual_seed(7)
    second = build()
    for (name, one), other in zip(first.named_parameters(), second.parameters(), strict=True):
        assert one.isfinite().all(), name
        assert torch.equal(one, other), name
    torch.manual_seed(8)
    assert not torch.equal(build().visual.conv1.weight, first.visual.conv1.weight)


@pytest.mark.parametrize("name", sorted(peer_names()))
@pytest.mark.usefixtures("poisoned_memory")
def test_every_parameter_of_an_architecture_is_drawn_from_the_seed(name: str) -> None:
    overrides = small_overrides(name)
    assert_drawn(lambda: zoo.build(name, overrides=overrides))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
@pytest.mark.usefixtures("poisoned_memory")
def test_every_parameter_of_a_class_is_drawn_from_the_seed(kind: Any, dtype: torch.dtype | None) -> None:
    arguments = tiny_arguments(init_logit_bias=-1.0, nonscalar_logit_scale=True, cast_dtype=dtype)
    arguments["vision_cfg"]["ls_init_value"] = arguments["text_cfg"]["ls_init_value"] = 1e-5
    assert_drawn(lambda: kind(**arguments))


def test_weights_start_at_the_spread_that_the_paper_gives() -> None:
    torch.manual_seed(0)
    width, layers = 256, 6
    text = CLIPTextCfg(width=width, heads=4, layers=layers, vocab_size=1024)
    model = CLIP(128, CLIPVisionCfg(width=width, layers=layers, image_size=32), text)
    for stack in (model.transformer, model.visual.transformer):
        block = stack.resblocks[0]
        for weight, spread in (
            (block.attn.in_proj_weight, width**-0.5),
            (block.attn.out_proj.weight, width**-0.5 * (2 * layers) ** -0.5),
            (block.mlp.c_fc.weight, (2 * width) ** -0.5),
            (block.mlp.c_proj.weight, width**-0.5 * (2 * layers) ** -0.5),
        ):
            assert weight.std().item() == pytest.approx(spread, rel=0.02)
        assert not block.attn.in_proj_bias.any()
    assert model.token_embedding.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert model.positional_embedding.std().item() == pytest.approx(0.01, rel=0.02)
    assert model.text_projection.std().item() == pytest.approx(width**-0.5, rel=0.02)
    assert model.visual.proj.std().item() == pytest.approx(width**-0.5, rel=0.02)


# Compilers


def shallow(kind: Any) -> Any:
    arguments = tiny_arguments()
    arguments["vision_cfg"]["layers"] = arguments["text_cfg"]["layers"] = 1
    return randomized(kind(**arguments)).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_breaks_the_compiled_graph(kind: Any) -> None:
    model = shallow(kind)
    image, text = images(model), captions(model)
    with torch.inference_mode():
        for function, arguments in (
            (model.encode_image, (image,)),
            (model.encode_text, (text,)),
            (model, (image, text)),
        ):
            torch.compiler.reset()
            compiled = torch.compile(function, fullgraph=True, backend="eager")
            torch.testing.assert_close(compiled(*arguments), function(*arguments), rtol=0, atol=1e-5)
    torch.compiler.reset()


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_program_takes_any_batch(kind: Any) -> None:
    model = shallow(kind)
    batch = torch.export.Dim("batch", min=1, max=64)
    shapes = {"image": {0: batch}, "text": {0: batch}}
    program = torch.export.export(model, (images(model, 3), captions(model, 3)), dynamic_shapes=shapes).module()
    for count in (2, 3, 5):
        arguments = images(model, count), captions(model, count)
        torch.testing.assert_close(program(*arguments), model(*arguments), rtol=0, atol=1e-5)


# Inputs


def test_an_empty_batch_gives_no_features(model: Any) -> None:
    assert model.encode_image(torch.zeros(0, 3, 32, 32)).shape == (0, 16)
    assert model.encode_text(torch.zeros(0, 12, dtype=torch.int64)).shape == (0, 16)
    image, text = model.get_logits(torch.zeros(0, 3, 32, 32), captions(model))
    assert (image.shape, text.shape) == ((0, 2), (2, 0))


def test_rows_may_end_after_the_end_of_text(model: Any) -> None:
    text = captions(model, 2)
    used = int((text > 0).sum(dim=1).max())
    assert used < model.context_length
    torch.testing.assert_close(model.encode_text(text[:, :used]), model.encode_text(text), rtol=0, atol=1e-6)


def test_token_ids_of_32_bits_are_taken(model: Any) -> None:
    text = captions(model)
    assert torch.equal(model.encode_text(text.int()), model.encode_text(text))


BAD_IMAGES: list[tuple[Any, str]] = [
    (
        torch.zeros(3, 32, 32),
        "expected images [B, 3, 32, 32], found torch.float32 [3, 32, 32]; add the batch dimension",
    ),
    (torch.zeros(32, 32), "expected images [B, 3, 32, 32], found torch.float32 [32, 32]"),
    (torch.zeros(1, 1, 32, 32), "expected images [B, 3, 32, 32], found torch.float32 [1, 1, 32, 32]"),
    (torch.zeros(1, 32, 32, 3), "expected images [B, 3, 32, 32], found torch.float32 [1, 32, 32, 3]"),
    (
        torch.zeros(1, 3, 32, 32, dtype=torch.uint8),
        "expected preprocessed images in floating point, found torch.uint8",
    ),
    (torch.zeros(1, 3, 32, 48), "expected images of 32 x 32 pixels, found torch.float32 [1, 3, 32, 48]"),
    ("a.png", "found str: this model has no preprocessing"),
    ([], "found list: this model has no preprocessing"),
    (None, "found NoneType: this model has no preprocessing"),
]
BAD_TEXTS: list[tuple[Any, str]] = [
    (torch.zeros(12, dtype=torch.int64), "expected int64 token ids [B, 12], found torch.int64 [12]"),
    (torch.zeros(1, 12), "expected int64 token ids [B, 12], found torch.float32 [1, 12]"),
    (torch.zeros(1, 12, dtype=torch.bool), "expected int64 token ids [B, 12], found torch.bool"),
    (torch.zeros(1, 13, dtype=torch.int64), "tokens in each row, found torch.int64 [1, 13]"),
    (torch.zeros(1, 0, dtype=torch.int64), "tokens in each row, found torch.int64 [1, 0]"),
    (torch.full((1, 12), 1024), "token ids run from 1024 to 1024; this text tower knows 0 to 1023"),
    (torch.full((1, 12), -1), "token ids run from -1 to -1"),
    ("a dog", "found str: this model has no tokenizer"),
    (["a dog"], "found list: this model has no tokenizer"),
    (None, "found NoneType: this model has no tokenizer"),
]


@pytest.mark.parametrize(("image", "message"), BAD_IMAGES, ids=[message for _, message in BAD_IMAGES])
def test_an_image_that_does_not_fit_is_told(image: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        tiny().encode_image(image)
    assert message in str(caught.value)


@pytest.mark.parametrize(("text", "message"), BAD_TEXTS, ids=[message for _, message in BAD_TEXTS])
def test_a_text_that_does_not_fit_is_told(text: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        tiny().encode_text(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_indices": 4}, "the last 4 of 3 blocks do not exist; allowed: 1 to 3"),
        ({"image_indices": 0}, "the last 0 of 3 blocks do not exist"),
        ({"text_indices": [3]}, "there is no block 3; allowed: -3 to 2"),
        ({"text_indices": [-4]}, "there is no block -4"),
        ({"image_output_fmt": "NHWC"}, "image_output_fmt must be 'NCHW' or 'NLC', found 'NHWC'"),
        ({"text_output_fmt": "NCHW"}, "text_output_fmt must be 'NLC', found 'NCHW'"),
        ({"text": None, "output_logits": True}, "output_logits needs both image and text"),
    ],
    ids=str,
)
def test_options_of_intermediates_that_do_not_fit_are_told(options: dict[str, Any], message: str) -> None:
    model = tiny()
    with pytest.raises(InputError) as caught:
        model.forward_intermediates(**{"image": images(model), "text": captions(model)} | options)
    assert message in str(caught.value)


def test_tokens_come_with_the_features_that_forward_gives(model: Any) -> None:
    image, text = images(model), captions(model)
    features, patches = model.visual.forward_tokens(image)
    assert torch.equal(features, model.encode_image(image))
    assert patches.shape == (2, 4, 32)
    features, tokens = model.text.forward_tokens(text)
    assert torch.equal(features, model.encode_text(text))
    assert tokens.shape == (2, 12, 24)
    ends = tokens[torch.arange(2), text.argmax(dim=-1)]
    torch.testing.assert_close(ends @ model.text.text_projection, features)


# Patch dropout


def dropping() -> Any:
    arguments = tiny_arguments()
    arguments["vision_cfg"] |= {"image_size": 64, "patch_dropout": 0.5}  # 16 patches, of which 8 stay
    return randomized(CLIP(**arguments)).eval()


def kept_tokens(model: Any, image: Tensor) -> Tensor:
    seen: list[Tensor] = []
    handle = model.visual.transformer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.encode_image(image)
    handle.remove()
    return seen[0]


def test_patch_dropout_keeps_the_class_token_and_a_share_of_the_patches_of_each_image() -> None:
    model = dropping()
    image = images(model, 3)
    every, some = kept_tokens(model, image), kept_tokens(model.train(), image)
    assert (every.shape[1], some.shape[1]) == (17, 9)
    assert torch.equal(some[:, 0], every[:, 0])
    chosen = []
    for kept, all_of_them in zip(some[:, 1:], every[:, 1:], strict=True):
        matches = (kept[:, None] == all_of_them[None]).all(dim=-1)
        assert (matches.sum(dim=1) == 1).all(), "each kept token is a patch of its own image"
        chosen.append(frozenset(matches.int().argmax(dim=1).tolist()))
        assert len(chosen[-1]) == 8
    assert len(set(chosen)) > 1, "each image loses others"


def test_patch_dropout_leaves_evaluation_alone() -> None:
    model = dropping()
    plain = copy.deepcopy(model)
    plain.visual.patch_dropout = 0.0
    assert_same_outputs(model, plain)
    assert not torch.equal(model.train().encode_image(images(model)), plain.encode_image(images(model)))


def test_intermediates_are_refused_where_patches_are_dropped() -> None:
    model = dropping()
    with pytest.raises(InputError, match="intermediates need every patch: call eval"):
        model.train().forward_intermediates(images(model))
    assert len(model.eval().forward_intermediates(images(model))["image_intermediates"]) == 3


# zoo.build


@pytest.fixture
def built() -> Any:
    return randomized(zoo.build(ARCHITECTURE))


def test_a_built_model_is_ready_for_inference(built: Any) -> None:
    assert not any(module.training for module in built.modules())
    assert type(built) is CLIP
    assert built.config == zoo.config(ARCHITECTURE)
    text = built.encode_text(["a dog", "a photo of a cat"])
    assert torch.equal(text, built.encode_text(built.tokenizer(["a dog", "a photo of a cat"])))


def test_the_model_key_picks_the_class() -> None:
    assert type(zoo.build(ARCHITECTURE | {"model": "custom-text-clip"})) is CustomTextCLIP


def test_model_options_of_an_architecture_reach_the_model() -> None:
    options = {"init_logit_scale": 1.5, "init_logit_bias": -2.0, "nonscalar_logit_scale": True}
    model = zoo.build(ARCHITECTURE | options)
    assert model.logit_scale.tolist() == [1.5]
    assert model.logit_bias is not None
    assert model.logit_bias.tolist() == [-2.0]


def test_overrides_change_the_architecture() -> None:
    model: Any = zoo.build(ARCHITECTURE, overrides=["vision.layers=1", "text.activation=quick_gelu"])
    assert len(model.visual.transformer.resblocks) == 1
    assert any(isinstance(module, QuickGELU) for module in model.text.modules())
    assert not any(isinstance(module, QuickGELU) for module in model.visual.modules())


def test_dtype_and_device_are_those_asked_for() -> None:
    assert {one.dtype for one in zoo.build(ARCHITECTURE, dtype=torch.bfloat16).parameters()} == {torch.bfloat16}
    assert {one.device.type for one in zoo.build(ARCHITECTURE, device="meta").parameters()} == {"meta"}


@pytest.mark.parametrize("tower", ["image", "text"])
def test_one_tower_alone_gives_the_features_of_the_whole(built: Any, tmp_path: Path, tower: str) -> None:
    folder = zoo.save(built, tmp_path / "model")
    model: Any = zoo.build(folder, towers=(tower,))
    whole = sum(one.numel() for one in built.parameters())
    assert sum(one.numel() for one in model.parameters()) < whole
    if tower == "image":
        assert model.text is None
        assert torch.equal(model.encode_image(images(model)), built.encode_image(images(built)))
        with pytest.raises(InputError, match="built without its text tower"):
            model.encode_text(["a dog"])
    else:
        assert model.visual is None
        assert torch.equal(model.encode_text(["a dog"]), built.encode_text(["a dog"]))
        with pytest.raises(InputError, match="built without its image tower"):
            model.encode_image(torch.zeros(1, 3, 32, 32))
    with pytest.raises(InputError, match="holds one tower only"):
        zoo.save(model, tmp_path / "part")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"towers": "text"}, "towers must hold 'image', 'text' or both, found 'text'"),
        ({"towers": ()}, "towers must hold"),
        ({"towers": ("audio",)}, "towers must hold"),
        ({"dtype": torch.int8}, "dtype must be a floating-point torch.dtype"),
        ({"dtype": "bf16"}, "dtype must be a floating-point torch.dtype"),
        ({"device": "gpu"}, "device 'gpu' is none"),
        ({"overrides": ["vision.layer=2"]}, "did you mean 'layers'"),
        ({"overrides": "vision.layers=2"}, "write overrides=['vision.layers=2']"),
    ],
    ids=str,
)
def test_a_wrong_argument_of_build_is_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises((InputError, ConfigError)) as caught:
        zoo.build(ARCHITECTURE, **options)
    assert message in str(caught.value)


# Folders


@pytest.mark.parametrize("kind", ["clip", "custom-text-clip"])
def test_a_saved_model_comes_back_bit_for_bit(tmp_path: Path, kind: str) -> None:
    model = randomized(zoo.build(ARCHITECTURE | {"model": kind, "init_logit_bias": -1.0}))
    loaded = zoo.load(zoo.save(model, tmp_path / "model"))
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    assert_same_outputs(model, loaded)


def test_a_saved_model_keeps_its_precision_unless_another_is_asked_for(built: Any, tmp_path: Path) -> None:
    folder = zoo.save(built.bfloat16(), tmp_path / "model")
    assert {one.dtype for one in zoo.load(folder).parameters()} == {torch.bfloat16}
    assert {one.dtype for one in zoo.load(folder, dtype=torch.float32).parameters()} == {torch.float32}


def test_a_folder_of_something_else_is_never_replaced(built: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(SaveError, match="exists and is no saved model"):
        zoo.save(built, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_save_that_fails_leaves_the_old_model(built: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch

    folder = zoo.save(built, tmp_path / "model")
    before = outputs(built)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(SaveError, match="No space left on device"):
        zoo.save(randomized(built, seed=1), folder)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    for one, other in zip(outputs(zoo.load(folder)), before, strict=True):
        assert torch.equal(one, other)


def test_a_model_built_by_hand_cannot_be_saved_without_its_config(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no config"):
        zoo.save(tiny(), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_published_parameters_are_the_models_own() -> None:
    model = tiny()
    assert {id(one) for one in published(model).values()} == {id(one) for one in model.parameters()}
