"""Each parameter gets the learning rate and the weight decay that its place asks for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from support.models.families import FAMILIES, model_of
from zoo.training.optimization.groups import group_table, parameter_groups
from zoo_core.config import OptimizerConfig
from zoo_core.errors import ConfigError


def config(**keys: Any) -> OptimizerConfig:
    return OptimizerConfig(type="any", **keys)


def rates(model: Any, **keys: Any) -> dict[str, tuple[float, float]]:
    """Return learning rate and weight decay of each parameter."""
    groups = parameter_groups(model, config(lr=1.0, **keys))
    for group in groups:
        named = dict(model.named_parameters())
        assert [named[name] is parameter for name, parameter in zip(group["names"], group["params"], strict=True)]
        assert group["lr"] == group["initial_lr"]
    return {name: (group["lr"], group["weight_decay"]) for group in groups for name in group["names"]}


def open_clip_decays(name: str, parameter: torch.Tensor) -> bool:
    """Tell which parameters open_clip decays with its own AdamW."""
    return not (parameter.ndim < 2 or any(part in name for part in ("bn", "ln", "bias", "logit_scale")))


@pytest.mark.parametrize("family", FAMILIES)
def test_decay_is_that_of_open_clip_but_for_what_towers_name(family: str) -> None:
    model = model_of(family)
    given = rates(model, weight_decay=0.3)
    assert given.keys() == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        expected = open_clip_decays(name, parameter) and name not in model.no_weight_decay()
        assert given[name] == (1.0, 0.3 if expected else 0.0), name


def test_weights_of_norms_are_not_decayed_whatever_their_shape() -> None:
    model = model_of("CustomTextCLIP")
    model.visual.ln_post = torch.nn.LayerNorm([1, 32])
    assert rates(model)["visual.ln_post.weight"][1] == 0.0


def test_frozen_parameters_are_in_no_group() -> None:
    model = model_of("ViT CLIP")
    model.lock_image_tower(unlocked_groups=1)
    assert [name for name in rates(model) if name.startswith("visual.")] == ["visual.proj"]


@pytest.mark.parametrize("family", FAMILIES)
def test_layer_decay_falls_from_the_output_to_the_input(family: str) -> None:
    model = model_of(family)
    given = rates(model, layer_decay={"image": 0.5})
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for distance, group in enumerate(reversed(model.visual.layer_groups())):
        for part in group:
            for parameter in [part] if isinstance(part, torch.nn.Parameter) else part.parameters():
                assert given[names[id(parameter)]][0] == 0.5**distance
    others = [lr for name, (lr, _) in given.items() if not name.startswith("visual.")]
    assert set(others) == {1.0}


def test_the_last_pattern_that_fits_scales_the_learning_rate() -> None:
    given = rates(model_of("ViT CLIP"), lr_scale={"text.*": 0.1, "text.token_embedding.*": 0.0, "logit_scale": 2.0})
    assert given["text.ln_final.weight"][0] == 0.1
    assert given["text.token_embedding.weight"][0] == 0.0
    assert given["logit_scale"][0] == 2.0
    assert given["visual.proj"][0] == 1.0


def test_patterns_and_layer_decay_multiply() -> None:
    given = rates(model_of("ViT CLIP"), layer_decay={"image": 0.5}, lr_scale={"visual.*": 0.1})
    assert given["visual.conv1.weight"][0] == pytest.approx(0.1 * 0.5**3)


REFUSED = {
    "a pattern": ({"lr_scale": {"txt.*": 0.1}}, r"optimizer: lr_scale\.txt\.\*: fits no parameter .* 'text\.\*'"),
    "a name": ({"lr_scale": {"logit_scal": 0.1}}, "lr_scale.logit_scal: fits no parameter .* 'logit_scale'"),
    "a tower": (
        {"layer_decay": {"vision": 0.5}},
        "layer_decay.vision: the model has no such tower; allowed: image, text",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_fits_nothing_is_refused(case: str) -> None:
    keys, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        parameter_groups(model_of("ViT CLIP"), config(**keys))


def test_a_tower_without_layer_groups_has_no_layer_decay() -> None:
    model = model_of("ViT CLIP")
    model.visual.layer_groups = lambda: [[model.visual]]
    with pytest.raises(ConfigError, match=r"layer_decay.image: VisionTransformer has no layer groups"):
        parameter_groups(model, config(layer_decay={"image": 0.5}))


def test_the_table_counts_every_trained_parameter_once() -> None:
    model = model_of("CoCa")
    groups = parameter_groups(model, config(lr=1e-3, layer_decay={"image": 0.5}))
    header, *rows = group_table(groups)
    assert header == ("tower", "layer group", "learning rate", "weight decay", "tensors", "parameters")
    total = sum(int(row[5].replace(",", "")) for row in rows)
    assert total == sum(parameter.numel() for parameter in model.parameters())
    assert {row[0] for row in rows} == {"image", "text", "none"}
    assert ("image", "2", "0.0005", "0.2") in {row[:4] for row in rows}
    assert {row[1] for row in rows if row[0] == "text"} == {"all"}
