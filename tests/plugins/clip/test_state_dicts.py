"""State dicts of CLIP and CustomTextCLIP: the published layout, the nested one, and what fits neither."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support.models.tiny_clip import KINDS, TEXT_PARTS, assert_same_outputs, tiny
from support.peer import published, randomized, tiny_arguments
from zoo import CLIP, CustomTextCLIP


@pytest.fixture(params=KINDS, ids=["CLIP", "CustomTextCLIP"])
def model(request: pytest.FixtureRequest) -> Any:
    return tiny(request.param)


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


def test_a_state_dict_survives_torch_save_and_a_weights_only_load(model: Any) -> None:
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = randomized(type(model)(**tiny_arguments()), seed=1).eval()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert_same_outputs(model, other)


def test_published_parameters_are_the_models_own() -> None:
    model = tiny()
    assert {id(one) for one in published(model).values()} == {id(one) for one in model.parameters()}
