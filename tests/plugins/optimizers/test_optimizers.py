"""Optimizers update as torch's and timm's do, go on bit for bit from a saved state, and refuse what they cannot do."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
import torch

import zoo
from support.models.families import model_of, pictures, words
from zoo.training.gradients.step import contrastive_step
from zoo.training.optimization.groups import parameter_groups
from zoo_core.config import OptimizerConfig, Section
from zoo_core.errors import ConfigError, MissingDependencyError

LR = 1e-3
TIMM = ("lamb", "lion", "adan", "adopt", "muon", "nadamw", "adafactorbv", "lookahead_radam")
EVERY: list[dict[str, Any]] = [
    {"type": "adamw"},
    {"type": "adamw", "fused": False},
    {"type": "sgd"},
    {"type": "muon"},
    {"type": "adamw-schedulefree"},
    *({"type": "timm", "name": name} for name in TIMM),
]
has_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has Muon from 2.9 on")


has_schedulefree = pytest.mark.skipif(find_spec("schedulefree") is None, reason="schedulefree is not installed")


def marked(keys: dict[str, Any]) -> Any:
    marks = {"muon": [has_muon], "adamw-schedulefree": [has_schedulefree]}.get(keys["type"], [])
    return pytest.param(keys, id=" ".join(str(value) for value in keys.values()), marks=marks)


def config(**keys: Any) -> Any:
    return Section(OptimizerConfig, "adamw").parse({"lr": LR, **keys}, "optimizer", zoo.registry())


def build(model: Any, **keys: Any) -> Any:
    parsed = config(**keys)
    component = zoo.registry().get("optimizer", parsed.component)
    return component.build(parsed, groups=parameter_groups(model, parsed))


@pytest.fixture(scope="module")
def steps() -> list[dict[str, torch.Tensor]]:
    """Gradients of a few steps, which every optimizer of this module is given."""
    model = model_of("CustomTextCLIP").train()
    drawn: list[dict[str, torch.Tensor]] = []
    for seed in range(4):
        model.zero_grad()
        contrastive_step(
            model, zoo.loss("contrastive"), {"image": pictures(model, 4, seed), "text": words(model, 4, seed)}
        )
        drawn.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    return drawn


def take(model: Any, optimizer: Any, steps: list[dict[str, torch.Tensor]]) -> None:
    for gradients in steps:
        for name, parameter in model.named_parameters():
            parameter.grad = gradients[name].clone()
        optimizer.step()


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(value, two[name]), name


@pytest.mark.parametrize("keys", [marked(keys) for keys in EVERY])
@pytest.mark.filterwarnings("ignore")
def test_a_saved_state_goes_on_bit_for_bit(keys: dict[str, Any], steps: list[dict[str, torch.Tensor]]) -> None:
    whole = model_of("CustomTextCLIP")
    before = weights(whole)
    optimizer = build(whole, **keys)
    take(whole, optimizer, steps)
    assert any(not torch.equal(before[name], value) for name, value in weights(whole).items())
    parted = model_of("CustomTextCLIP")
    first = build(parted, **keys)
    take(parted, first, steps[:2])
    state, at_save = copy.deepcopy(first.state_dict()), weights(parted)
    resumed = model_of("CustomTextCLIP")
    resumed.load_state_dict(parted.state_dict())
    second = build(resumed, **keys)
    second.load_state_dict(state)
    assert_equal(weights(resumed), at_save)
    take(resumed, second, steps[2:])
    assert_equal(weights(resumed), weights(whole))


def matrices(groups: list[dict[str, Any]]) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Yield what Muon is meant for: maps between features."""
    for group in groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            if parameter.ndim == 2 and "embed" not in name:
                yield name, parameter


@has_muon
@pytest.mark.parametrize("keys", [{}, {"adjust_lr": "original", "nesterov": False, "momentum": 0.9, "steps": 3}])
def test_muon_is_that_of_torch_with_adamw_beside_it(keys: dict[str, Any], steps: list[dict[str, torch.Tensor]]) -> None:
    ours, theirs = model_of("CustomTextCLIP"), model_of("CustomTextCLIP")
    take(ours, build(ours, type="muon", weight_decay=0.1, **keys), steps)
    groups = parameter_groups(theirs, config(type="adamw", weight_decay=0.1))
    to_muon = dict(matrices(groups))
    assert {"visual.proj", "text.text_projection", "text.transformer.resblocks.0.mlp.c_fc.weight"} <= to_muon.keys()
    assert not {"text.token_embedding.weight", "visual.positional_embedding"} & to_muon.keys()
    muon = torch.optim.Muon(
        to_muon.values(),
        lr=LR,
        weight_decay=0.1,
        momentum=keys.get("momentum", 0.95),
        nesterov=keys.get("nesterov", True),
        ns_steps=keys.get("steps", 5),
        adjust_lr_fn=keys.get("adjust_lr", "match_rms_adamw"),
    )
    rest = [
        {**group, "params": [one for one in group["params"] if all(one is not other for other in to_muon.values())]}
        for group in groups
    ]
    adamw = torch.optim.AdamW(rest, lr=LR, betas=(0.9, 0.98), eps=1e-6, fused=True)
    for gradients in steps:
        take(theirs, muon, [gradients])
        take(theirs, adamw, [gradients])
    assert_equal(weights(ours), weights(theirs))


@has_muon
def test_a_schedule_reaches_both_halves_of_muon(steps: list[dict[str, torch.Tensor]]) -> None:
    model = model_of("CustomTextCLIP")
    before, optimizer = weights(model), build(model, type="muon")
    assert {group["algorithm"] for group in optimizer.param_groups} == {"muon", "adamw"}
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    take(model, optimizer, steps)
    assert_equal(weights(model), before)


@has_muon
def test_patterns_say_which_matrices_adamw_updates(steps: list[dict[str, torch.Tensor]]) -> None:
    optimizer = build(model_of("CustomTextCLIP"), type="muon", adamw=["*"])
    assert {group["algorithm"] for group in optimizer.param_groups} == {"adamw"}
    take(model_of("CustomTextCLIP"), optimizer, steps[:1])


def test_a_torch_without_muon_is_told_which_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(MissingDependencyError, match="muon needs torch 2.9, found .*; run: pip install -U torch"):
        build(model_of("CustomTextCLIP"), type="muon")


@pytest.mark.parametrize("keys", [{"type": "adamw"}, {"type": "sgd"}], ids=str)
def test_updates_are_fused_where_torch_can(keys: dict[str, Any]) -> None:
    model = model_of("ViT CLIP")
    assert build(model, **keys).param_groups[0]["fused"] is True
    assert build(model, fused=False, **keys).param_groups[0]["fused"] is False
    assert not build(model.to("meta"), **keys).param_groups[0]["fused"]


def test_adamw_is_that_of_torch(steps: list[dict[str, torch.Tensor]]) -> None:
    ours, theirs = model_of("CustomTextCLIP"), model_of("CustomTextCLIP")
    take(ours, build(ours, weight_decay=0.3, betas=[0.8, 0.9], eps=1e-5, fused=False), steps)
    groups = parameter_groups(theirs, config(weight_decay=0.3))
    take(theirs, torch.optim.AdamW(groups, lr=LR, betas=(0.8, 0.9), eps=1e-5, fused=False), steps)
    assert_equal(weights(ours), weights(theirs))


def test_groups_keep_their_rates_in_every_optimizer() -> None:
    model = model_of("CustomTextCLIP")
    for keys in EVERY:
        if keys["type"] in ("adamw-schedulefree", "muon"):  # which may not be there
            continue
        optimizer = build(model, weight_decay=0.25, lr_scale={"text.*": 0.5}, **keys)
        rates = {
            name: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for name in group["names"]
        }
        assert rates["text.token_embedding.weight"] == (LR / 2, 0.25), keys
        assert rates["visual.conv1.weight"] == (LR, 0.25), keys
        assert rates["visual.ln_post.weight"] == (LR, 0.0), keys


@has_schedulefree
def test_schedule_free_adamw_evaluates_the_average(steps: list[dict[str, torch.Tensor]]) -> None:
    import schedulefree

    ours, theirs = model_of("CustomTextCLIP"), model_of("CustomTextCLIP")
    optimizer = build(ours, type="adamw-schedulefree", weight_decay=0.1)
    reference = schedulefree.AdamWScheduleFree(
        parameter_groups(theirs, config(weight_decay=0.1)), lr=LR, betas=(0.9, 0.98), eps=1e-6
    )
    reference.train()
    for model, one in ((ours, optimizer), (theirs, reference)):
        take(model, one, steps)
        one.eval()
    assert_equal(weights(ours), weights(theirs))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown optimizer": ({"type": "adamm"}, "did you mean 'adamw'"),
    "an unknown name of timm": (
        {"type": "timm", "name": "lambb"},
        "optimizer: name: timm has no optimizer 'lambb', did you mean 'lamb",
    ),
    "an option that timm has not": (
        {"type": "timm", "name": "lion", "kwargs": {"bettas": 3}},
        "optimizer: kwargs: timm's lion cannot be built: TypeError: .*bettas",
    ),
    "an option with a key of its own": (
        {"type": "timm", "name": "lion", "kwargs": {"lr": 3.0}},
        "kwargs.lr: cannot be set here: optimizer.lr sets it",
    ),
    "second derivatives": ({"type": "timm", "name": "adahessian"}, "timm's adahessian needs second derivatives"),
    "a key of another library": ({"type": "timm", "opt": "lion"}, "'?name'?"),
    "beta of 1": ({"type": "adamw", "betas": [0.9, 1.0]}, r"betas\[1\]"),
    "three betas": ({"type": "adamw", "betas": [0.9, 0.9, 0.9]}, "betas"),
    "nesterov without momentum": ({"type": "sgd", "momentum": 0.0, "nesterov": True}, "nesterov: needs a momentum"),
    "no learning rate": ({"type": "adamw", "lr": 0.0}, "lr"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_an_optimizer_cannot_do_is_refused(case: str) -> None:
    keys, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        build(model_of("ViT CLIP"), **keys)
