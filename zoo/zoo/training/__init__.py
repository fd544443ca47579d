"""Training of dual encoders: recipes, data order, steps, parallelism, checkpoints and records.

A run is decided by its recipe alone. Which samples a step sees is a pure function of the seed and the step, so that a
run that was killed goes on as if it had not been.

    with zoo.training.prepare("recipe.yaml") as run:
        for batch in run:
            run.step(batch)

Importing this package imports no torch: each name below is looked up on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.training.gradients.step import StepResult, contrastive_step
    from zoo.training.preparation import prepare
    from zoo.training.recipe.load import read_recipe
    from zoo.training.recipe.recipe import Recipe
    from zoo.training.result import TrainResult
    from zoo.training.run import Run

__all__ = ["Recipe", "Run", "StepResult", "TrainResult", "contrastive_step", "prepare", "read_recipe"]

_HOMES = {
    "Recipe": "recipe.recipe",
    "Run": "run",
    "StepResult": "gradients.step",
    "TrainResult": "result",
    "contrastive_step": "gradients.step",
    "prepare": "preparation",
    "read_recipe": "recipe.load",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo.training' has no attribute '{name}'")
    return getattr(importlib.import_module(f"zoo.training.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
