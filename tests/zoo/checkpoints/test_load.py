"""Weights into models: fitting ones exactly, others not at all, and the line says why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip.model
import pytest
import timm.layers
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import zoo
from support.models.tiny_configs import TINY, changed
from zoo.building.assemble import assemble
from zoo.checkpoints.match import LoadOptions, match_entries
from zoo.checkpoints.open import open_checkpoint
from zoo.materialize.skeleton import skeleton
from zoo_core.errors import CheckpointError, InputError, MismatchError, ZooWarning
from zoo_core.nn.position_embedding import PositionTable, grid_of, resample

Tensors = dict[str, Tensor]


def written(path: Path, architecture: Any = TINY, change: Callable[[Tensors], Tensors | None] | None = None) -> Path:
    """Write random weights of an architecture, changed."""
    torch.manual_seed(3)
    tensors = {key: value.contiguous() for key, value in zoo.build(architecture).state_dict().items()}
    tensors = tensors if change is None else change(tensors) or tensors
    (save_file if path.suffix == ".safetensors" else torch.save)(tensors, path)
    return path


def biased(architecture: Any = TINY, value: float = -10.0) -> dict[str, Any]:
    return {**architecture, "init_logit_bias": value}


# Containers


@pytest.mark.parametrize(
    "wrap", [lambda t: t, lambda t: {"epoch": 1, "model": {f"module.{k}": v for k, v in t.items()}}]
)
def test_every_container_gives_the_same_model(wrap: Callable[[Tensors], Any], tmp_path: Path) -> None:
    whole = zoo.build(TINY, pretrained=written(tmp_path / "x.safetensors"))
    torch.save(wrap(whole.state_dict()), tmp_path / "x.pt")
    other = zoo.build(TINY, pretrained=tmp_path / "x.pt")
    for key, value in whole.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])


def test_what_was_assumed_is_recorded(tmp_path: Path) -> None:
    torch.save({"model": {f"clip.{k}": v for k, v in zoo.build(TINY).state_dict().items()}}, tmp_path / "x.pt")
    model = zoo.build(TINY, pretrained=tmp_path / "x.pt")
    left = "vision.activation 'gelu', text.activation 'gelu', tokenizer, preprocess"
    assert model.notes == (
        "read from 'model'",
        "prefix 'clip.' taken off every name",
        f"taken from the architecture, since the weights do not tell: {left}",
    )
    assert zoo.load_weights(model, tmp_path / "x.pt").notes == model.notes


def test_nothing_is_assumed_of_weights_that_say_all_or_of_which_a_tag_does(tmp_path: Path) -> None:
    model = zoo.build("digits-tiny", pretrained="demo")
    folder = zoo.save(model, tmp_path / "model", probe=False)
    for other in (zoo.load(folder), zoo.build("digits-tiny", pretrained=folder / "model.safetensors")):
        assert other.notes == model.notes == ()


def test_an_average_is_taken_on_request(tmp_path: Path) -> None:
    trained, average = zoo.build(TINY).state_dict(), zoo.build(TINY).state_dict()
    torch.save({"state_dict": trained, "state_dict_ema": average}, tmp_path / "x.pt")
    for weights, expected in ((None, trained), ("ema", average)):
        model = zoo.build(TINY, pretrained=tmp_path / "x.pt", weights=weights)
        assert torch.equal(model.visual.proj, expected["visual.proj"])


def test_both_layouts_of_the_text_tower_load_in_every_model(tmp_path: Path) -> None:
    flat = written(tmp_path / "x.safetensors")
    tensors = load_file(flat)
    text = {key for key in tensors if not key.startswith(("visual.", "logit_"))}
    nested = {f"text.{key}" if key in text else key: value for key, value in tensors.items()}
    save_file(nested, tmp_path / "nested.safetensors")
    for path in (flat, tmp_path / "nested.safetensors"):
        for architecture in (TINY, {**TINY, "model": "custom-text-clip"}):
            model = zoo.build(architecture, pretrained=path)
            assert torch.equal(model.text.ln_final.weight, tensors["ln_final.weight"])
    save_file(nested | {"ln_final.bias": tensors["ln_final.bias"] + 1}, tmp_path / "twice.safetensors")
    with pytest.raises(CheckpointError, match=r"holds 'ln_final\.bias' twice"):
        zoo.build(TINY, pretrained=tmp_path / "twice.safetensors")


# What does not fit


def without(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: value for key, value in tensors.items() if not key.startswith(prefix)}


def towers_alone(tensors: Tensors) -> Tensors:
    return {key: value for key, value in tensors.items() if key.startswith(("visual.", "logit_"))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("ln_final.bias"), "1 missing in the text tower: ln_final.bias$"),
        (lambda t: t | {"visual.extra": torch.zeros(1)}, "1 unexpected in the image tower: visual.extra$"),
        (lambda t: t | {"visual.proj": torch.zeros(3, 3)}, r"visual.proj has shape \[3, 3\], expected \[64, 32\]$"),
        (
            towers_alone,
            r"missing in the text tower: .* The whole text tower is missing: build the other one with towers=",
        ),
        (without("visual."), r"missing in the image tower: .* The whole image tower is missing"),
        (
            lambda t: {f"model.layer{i}": v for i, v in enumerate(t.values())},
            "the weights are in a format that no inst",
        ),
        (
            lambda t: t | {"visual.proj": t["visual.proj"].long()},
            r"visual.proj \(int64, expected float32\); are the wei",
        ),
        (
            lambda t: t | {"positional_embedding": torch.zeros(9, 64)},
            r"Only the positions differ \(9 tokens for 16\): .*resize='bicubic'",
        ),
        (
            lambda t: t | {"logit_bias": torch.zeros([])},
            r"overrides=\['init_logit_bias=-10'\], whose value the weights",
        ),
        (lambda t: t | {"logit_scale": torch.zeros(3)}, r"logit_scale has shape \[3\], expected \[\]"),
        (
            lambda t: t["visual.proj"].__setitem__((3, 4), float("nan")),
            "NaN or infinity: 1 of 2048 values of 'visual.pro",
        ),
    ],
)
def test_weights_that_do_not_fit_are_explained_and_change_nothing(
    change: Callable[[Tensors], Any], message: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "x.safetensors", change=change)
    with pytest.raises(CheckpointError, match=message) as caught:
        zoo.build(TINY, pretrained=path)
    assert str(path) in str(caught.value)
    model = zoo.build(TINY)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        zoo.load_weights(model, path)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_the_error_holds_what_differs(tmp_path: Path) -> None:
    def change(tensors: Tensors) -> Tensors:
        del tensors["ln_final.bias"]
        return tensors | {"visual.extra": torch.zeros(1), "visual.proj": torch.zeros(3, 3)}

    with pytest.raises(MismatchError) as caught:
        zoo.build(TINY, pretrained=written(tmp_path / "x.safetensors", change=change))
    assert caught.value.missing == ("ln_final.bias",)
    assert caught.value.unexpected == ("visual.extra",)
    assert caught.value.misshapen == {"visual.proj": ((3, 3), (64, 32))}


def test_weights_of_another_architecture_name_it() -> None:
    demo = Path(zoo.__file__).parent / "pretrained" / "digits-tiny-demo.safetensors"
    with pytest.raises(MismatchError, match="The architecture that fits best is 'digits-tiny': every entry fits"):
        zoo.build(TINY, pretrained=demo)


def test_a_missing_logit_bias_is_a_choice_and_never_a_zero(tmp_path: Path) -> None:
    path = written(tmp_path / "x.safetensors")
    with pytest.raises(
        MismatchError, match=r"1 missing in the model: logit_bias\. .*init_logit_bias=null.* logit_bias="
    ):
        zoo.build(biased(), pretrained=path)
    with pytest.warns(ZooWarning, match="logit_bias is -3, as asked: the weights have none"):
        assert zoo.build(biased(), pretrained=path, logit_bias=-3).logit_bias.item() == -3
    assert zoo.build(biased(), pretrained=path, overrides=["init_logit_bias=null"]).logit_bias is None


def test_weights_load_into_a_built_model_in_its_dtype_and_its_parameters(tmp_path: Path) -> None:
    path = written(tmp_path / "x.safetensors")
    model = zoo.build(TINY, dtype=torch.bfloat16)
    parameters = dict(model.named_parameters())
    assert zoo.load_weights(model, path) is model
    assert all(one is parameters[name] for name, one in model.named_parameters())
    assert torch.equal(model.visual.proj, load_file(path)["visual.proj"].bfloat16())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": "cubic"}, "resize must be None, 'bicubic' or 'bilinear', found 'cubic'"),
        ({"logit_bias": float("nan")}, "logit_bias must be a finite number or None, found nan"),
        ({"logit_bias": True}, "logit_bias must be a finite number"),
        ({"weights": "ema"}, "pretrained= names none"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        zoo.build(TINY, **options)


def test_a_saved_model_file_tells_an_architecture_of_equal_shapes(tmp_path: Path) -> None:
    config = zoo.config(changed(vision={"activation": "quick_gelu"}))
    path = tmp_path / "x.safetensors"
    save_file(assemble(config).state_dict(), path, metadata={"zoo.config": json.dumps(config.data())})
    with pytest.raises(CheckpointError, match="vision.activation is 'gelu', the weights are for 'quick_gelu'"):
        zoo.build(TINY, pretrained=path)
    zoo.build(TINY, pretrained=path, overrides=["vision.activation=quick_gelu"])
    zoo.build(changed(vision={"activation": "quick_gelu"}), pretrained=path, overrides=["vision.activation=gelu"])


# Positions


@pytest.mark.parametrize("new", [(4, 4), (7, 7), (3, 5)])
def test_grids_are_resampled_as_open_clip_does(new: tuple[int, int]) -> None:
    table = torch.randn(1 + 25, 8)

    class Visual:
        grid_size = new

    class Model:
        visual = Visual

    state = {"visual.positional_embedding": table.clone()}
    open_clip.model.resize_pos_embed(state, Model)
    found = resample(table, PositionTable((5, 5), 1), PositionTable(new, 1), "bicubic")
    torch.testing.assert_close(found, state["visual.positional_embedding"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("length", [5, 9, 16, 31])
def test_rows_are_resampled_as_open_clip_does(length: int) -> None:
    table = torch.randn(12, 8)
    model = zoo.build(changed(text={"context_length": length}))
    state = {"positional_embedding": table[:, :1].expand(12, 64).clone()}
    open_clip.model.resize_text_pos_embed(state, model)
    found = resample(table, PositionTable((12,)), PositionTable((length,)), "bicubic")
    torch.testing.assert_close(found[:, :1].expand(-1, 64), state["positional_embedding"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("old", "new", "prefix"), [((6, 4), (9, 6), 0), ((4, 4), (7, 3), 1), ((3, 5), (6, 10), 5)])
def test_grids_of_any_shape_and_prefix_are_resampled_as_timm_does(
    old: tuple[int, int], new: tuple[int, int], prefix: int
) -> None:
    table = torch.randn(1, prefix + old[0] * old[1], 8)
    expected = timm.layers.resample_abs_pos_embed(table, list(new), list(old), num_prefix_tokens=prefix)
    found = resample(table, PositionTable(old, prefix), PositionTable(new, prefix), "bicubic")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_what_stands_behind_a_row_stays() -> None:
    table = torch.randn(8, 4)
    found = resample(table, PositionTable((7,), suffix=1), PositionTable((13,), suffix=1), "bicubic")
    assert torch.equal(found[-1], table[-1])
    assert torch.equal(found[:-1], resample(table[:-1], PositionTable((7,)), PositionTable((13,)), "bicubic"))


def test_a_grid_has_the_proportions_of_the_images_or_is_square() -> None:
    assert grid_of(24, (336, 224)) == (6, 4)
    assert grid_of(24, (224, 336)) == (4, 6)
    assert grid_of(49, (384, 128)) == (7, 7)
    assert grid_of(24, (224, 224)) is None
    assert grid_of(0, (1, 1)) is None


def test_another_image_size_or_context_length_that_is_asked_for_is_resampled_and_said(tmp_path: Path) -> None:
    path = written(tmp_path / "x.safetensors")
    overrides = ["vision.image_size=[48,32]", "text.context_length=20"]
    with pytest.warns(ZooWarning) as caught:
        model = zoo.build(TINY, pretrained=path, overrides=overrides)
    told = [str(one.message) for one in caught]
    assert "positions 'visual.positional_embedding' were resampled from 4 x 4 to 6 x 4 (bicubic)" in told[1]
    assert "positions 'positional_embedding' were resampled from 16 to 20 (linear)" in told[0]
    tensors = load_file(path)
    expected = resample(
        tensors["visual.positional_embedding"], PositionTable((4, 4), 1), PositionTable((6, 4), 1), "bicubic"
    )
    assert torch.equal(model.visual.positional_embedding, expected)
    assert model.encode_image(torch.zeros(1, 3, 48, 32)).shape == (1, 32)
    folder = zoo.save(zoo.build(TINY, pretrained=path), tmp_path / "model", probe=False)
    with pytest.warns(ZooWarning):
        again = zoo.build(folder, overrides=overrides)
    assert torch.equal(again.visual.positional_embedding, expected)


def test_without_being_asked_for_no_position_is_resampled(tmp_path: Path) -> None:
    path = written(tmp_path / "x.safetensors")
    larger = changed(vision={"image_size": 64})
    with pytest.raises(MismatchError, match="4 x 4 patches for 8 x 8"):
        zoo.build(larger, pretrained=path)
    with pytest.warns(ZooWarning, match="from 4 x 4 to 8 x 8"):
        zoo.build(larger, pretrained=path, resize="bilinear")


@pytest.mark.parametrize(
    ("vision", "key"),
    [
        ({"tower": "timm", "name": "vit_tiny_patch16_224", "pool": "map", "proj": "none"}, "trunk.pos_embed"),
        ({"tower": "modified-resnet", "width": 8, "layers": [1, 1, 1, 1]}, "attnpool.positional_embedding"),
    ],
    ids=["timm", "resnet"],
)
def test_towers_of_every_kind_are_resampled(vision: dict[str, Any], key: str, tmp_path: Path) -> None:
    embed_dim = 192 if vision["tower"] == "timm" else 32
    small = {**TINY, "embed_dim": embed_dim, "vision": {**vision, "image_size": 64}}
    path = written(tmp_path / "x.safetensors", small)
    with pytest.warns(ZooWarning, match="were resampled from"):
        model = zoo.build(small, pretrained=path, overrides=["vision.image_size=[96,64]"])
    table = model.visual.position_tables()[key]
    assert table.size[0] * 2 == table.size[1] * 3
    assert model.encode_image(torch.zeros(1, 3, 96, 64)).isfinite().all()


# Building fast


def test_one_tower_needs_its_own_weights_alone(tmp_path: Path) -> None:
    path = written(tmp_path / "x.safetensors", change=without("visual."))
    model = zoo.build(TINY, pretrained=path, towers=("text",))
    plan = match_entries(open_checkpoint(path), skeleton(zoo.config(TINY), ("text",)), LoadOptions())
    assert set(plan.keys) == set(model.state_dict())


def test_weights_are_converted_and_the_file_is_not_held(tmp_path: Path) -> None:
    path = written(tmp_path / "x.safetensors")
    model = zoo.build(TINY, pretrained=path, dtype=torch.float64)
    for key, value in load_file(path).items():
        assert torch.equal(model.state_dict()[key], value.double())


def test_buffers_that_no_file_holds_are_computed_and_nothing_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EVA computes its rotary positions; only the tower that needs it is built for that, without weights."""
    from zoo.materialize import skeleton as building

    vision = {
        "tower": "timm",
        "name": "vit_small_patch16_rope_224",
        "image_size": 32,
        "pool": "token",
        "proj": "linear",
    }
    config = {**TINY, "vision": vision}
    path = written(tmp_path / "x.safetensors", config)
    expected = zoo.build(config)
    expected.load_state_dict(load_file(path))
    built: list[tuple[str, ...]] = []
    construct = building.construct
    for module in ("zoo.materialize.skeleton", "zoo.building.assemble"):
        monkeypatch.setattr(
            f"{module}.construct", lambda config, towers: built.append(towers) or construct(config, towers)
        )
    before = torch.random.get_rng_state()
    model = zoo.build(config, pretrained=path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert built == [("image", "text"), ("image",)]
    buffers = dict(expected.named_buffers())
    assert set(buffers) - set(expected.state_dict())
    for name, value in model.named_buffers():
        assert torch.equal(value, buffers[name]), name
    image = torch.randn(1, 3, 32, 32)
    # not bit for bit: where weights are mapped, they lie at other addresses, and matrix products add in another order
    torch.testing.assert_close(model.encode_image(image), expected.eval().encode_image(image), atol=1e-6, rtol=1e-5)
