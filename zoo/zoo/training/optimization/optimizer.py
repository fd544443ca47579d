"""Optimizers of a run."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from torch.optim import Optimizer

from zoo.training.gradients.wrapped_model import bare_model, drop_gathered
from zoo.training.optimization.groups import parameter_groups
from zoo_core.config import OptimizerConfig
from zoo_core.registry import Registry

__all__ = ["build_optimizer", "weights_that_count"]


def build_optimizer(config: OptimizerConfig, model: Any, registry: Registry) -> Optimizer:
    """Return an optimizer of the parameters of a model that are not frozen.

    Raises:
        ConfigError: a key of the config fits nothing of the model, or not the optimizer.
        MissingDependencyError: its package is not installed.
    """
    component = registry.get("optimizer", config.component)
    return component.build(config, groups=parameter_groups(model, config))


@contextmanager
def weights_that_count(optimizer: Any, model: Any) -> Generator[None]:
    """Have a model hold in a block the weights that it is evaluated and saved with.

    An optimizer without a schedule trains other weights than those, and has methods `eval` and `train` that put either
    in place. For all others nothing changes.
    """
    exchanges = callable(getattr(optimizer, "eval", None)) and callable(getattr(optimizer, "train", None))
    if exchanges:
        drop_gathered(bare_model(model))
        optimizer.eval()
    try:
        yield
    finally:
        if exchanges:
            drop_gathered(bare_model(model))
            optimizer.train()
