"""Schedules: the factor of the learning rate as a function of the step.

Nothing is remembered from step to step, so that a cooldown can begin at any checkpoint: a run that goes on from it with
fewer `steps` falls to its end there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from zoo_core.errors import ConfigError, Problem

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from zoo.training.recipe.sections import Schedule

__all__ = ["learning_rate_factor", "set_learning_rates"]


def learning_rate_factor(schedule: Schedule, step: int, steps: int) -> float:
    """Return what learning rates are multiplied by in a step.

    Warm-up rises in a line, and reaches 1 in its last step. `end` is reached in the step after the last one.

    Args:
        schedule: its section of the recipe.
        step: number of the step, from 0.
        steps: number of steps of the run.

    Raises:
        ConfigError: warm-up and cooldown do not fit into the steps.
    """
    warmup, cooldown = _lengths(schedule, steps)
    if step < warmup:
        return (step + 1) / warmup
    rest = steps - warmup if schedule.type in ("cosine", "linear") else cooldown
    fall = max(0.0, min(1.0, (step - (steps - rest)) / rest)) if rest else 0.0  # 0 before it falls, 1 at its end
    start = math.sqrt(max(warmup, 1) / (min(step, steps - rest) + 1)) if schedule.type == "rsqrt" else 1.0
    left = (1 + math.cos(math.pi * fall)) / 2 if schedule.type == "cosine" else 1 - fall
    return schedule.end + (start - schedule.end) * left


def set_learning_rates(optimizer: Optimizer, factor: float) -> None:
    """Set the learning rate of each parameter group to its `initial_lr` times a factor."""
    groups: list[dict[str, Any]] = optimizer.param_groups
    for group in groups:
        group["lr"] = group["initial_lr"] * factor


def _lengths(schedule: Schedule, steps: int) -> tuple[int, int]:
    """Return the number of steps of warm-up, and of a cooldown at the end."""
    warmup = schedule.warmup if isinstance(schedule.warmup, int) else round(schedule.warmup * steps)
    cooldown = (
        max(1, round(schedule.cooldown * steps)) if schedule.cooldown and schedule.type in ("wsd", "rsqrt") else 0
    )
    if warmup + cooldown > steps:
        found = f"{warmup:,} steps of warm-up" + (f" and {cooldown:,} of cooldown" if cooldown else "")
        raise ConfigError(Problem(f"{found} do not fit into {steps:,} steps", "warmup", "schedule"))
    return warmup, cooldown
