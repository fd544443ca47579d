"""Schedules against open_clip's, torch's and closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from zoo.training.optimization.schedules import learning_rate_factor, set_learning_rates
from zoo.training.recipe.sections import Schedule
from zoo_core.errors import ConfigError

STEPS = 50


def factors(steps: int = STEPS, **keys: Any) -> list[float]:
    schedule = Schedule(steps=steps, **keys)
    return [learning_rate_factor(schedule, step, steps) for step in range(steps)]


def theirs(make: Any, *arguments: Any) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    adjust = make(optimizer, 1.0, *arguments)
    return [adjust(step) for step in range(STEPS)]


@pytest.mark.parametrize("warmup", [0, 7])
def test_cosine_constant_and_wsd_are_those_of_open_clip(warmup: int) -> None:
    from open_clip_train import scheduler

    assert factors(type="cosine", warmup=warmup) == pytest.approx(theirs(scheduler.cosine_lr, warmup, STEPS), abs=1e-15)
    assert factors(type="constant", warmup=warmup) == theirs(scheduler.const_lr, warmup, STEPS)
    cooldown = theirs(scheduler.const_lr_cooldown, warmup, STEPS, 20, 1.0, 0.1)
    assert factors(type="wsd", warmup=warmup, cooldown=0.4, end=0.1) == pytest.approx(cooldown, abs=1e-15)


def test_cosine_and_linear_are_those_of_torch() -> None:
    for kind, end in (("cosine", 0.0), ("cosine", 0.25), ("linear", 0.0), ("linear", 0.25)):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler: Any = (
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS, eta_min=end)
            if kind == "cosine"
            else torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, end, STEPS)
        )
        expected = []
        for _ in range(STEPS):
            expected.append(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
        assert factors(type=kind, end=end) == pytest.approx(expected, abs=1e-12)


def test_rsqrt_is_the_inverse_root_of_the_step_and_falls_to_the_end_in_a_line() -> None:
    given = factors(100, type="rsqrt", warmup=10, cooldown=0.3, end=0.05)
    for step in range(10):
        assert given[step] == pytest.approx((step + 1) / 10)
    for step in range(10, 70):
        assert given[step] == pytest.approx(math.sqrt(10 / (step + 1)))
    start = math.sqrt(10 / 71)
    for step in range(70, 100):
        assert given[step] == pytest.approx(start + (0.05 - start) * (step - 70) / 30)


def test_warm_up_can_be_a_share_of_the_steps() -> None:
    assert factors(type="linear", warmup=0.1) == factors(type="linear", warmup=5)


@pytest.mark.parametrize("kind", ["wsd", "rsqrt"])
def test_a_cooldown_branches_off_any_checkpoint(kind: str) -> None:
    long = factors(100, type=kind, warmup=10, cooldown=0.2)
    short = factors(60, type=kind, warmup=10, cooldown=20 / 60)
    assert short[:40] == long[:40]
    assert short[40] == long[40] and all(one > other for one, other in zip(long[41:60], short[41:], strict=True))
    assert short[-1] == pytest.approx(short[40] / 20)


@pytest.mark.parametrize("kind", ["cosine", "linear", "wsd", "rsqrt"])
def test_the_end_is_reached_in_the_step_after_the_last(kind: Any) -> None:
    schedule = Schedule(type=kind, steps=STEPS, warmup=5, end=0.1)
    assert learning_rate_factor(schedule, STEPS, STEPS) == pytest.approx(0.1)


def test_one_step_has_a_learning_rate() -> None:
    for kind in ("cosine", "linear", "wsd", "rsqrt", "constant"):
        assert factors(1, type=kind, cooldown=0.0) == [1.0]


REFUSED = {
    "warm-up": ({"warmup": 51}, "warmup: 51 steps of warm-up do not fit into 50 steps"),
    "both": ({"type": "wsd", "warmup": 45}, "warmup: 45 steps of warm-up and 10 of cooldown do not fit into 50 steps"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case: str) -> None:
    keys, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        factors(**keys)


def test_every_group_keeps_its_share_of_the_learning_rate() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr, "initial_lr": lr} for lr in (1.0, 0.1)]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    for factor in (0.5, 0.25):
        set_learning_rates(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == [factor, factor * 0.1]
