"""Optimizers of timm by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm.optim
from torch.optim import Optimizer

from zoo_core.errors import ConfigError, Problem, did_you_mean, reason
from zoo_optimizers.config import TimmOptimizerConfig

__all__ = ["timm_optimizer"]


def timm_optimizer(config: TimmOptimizerConfig, *, groups: Sequence[dict[str, Any]]) -> Optimizer:
    """Build an optimizer.

    Raises:
        ConfigError: timm has none of that name, or it does not take an option, or needs what is not here.
    """
    optimizers: Any = timm.optim
    name, names = config.name, set[str](optimizers.list_optimizers())
    if name.removeprefix("lookahead_") not in names:
        raise _problem("name", f"timm has no optimizer '{name}'{did_you_mean(name, names)}")
    options: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay, **config.kwargs}
    try:
        optimizer: Any = optimizers.create_optimizer_v2(groups, opt=name, filter_bias_and_bn=False, **options)
    except (TypeError, ValueError, AssertionError, ImportError) as error:
        raise _problem("kwargs", f"timm's {name} cannot be built: {reason(error)}") from error
    if getattr(optimizer, "is_second_order", False):
        raise _problem("name", f"timm's {name} needs second derivatives, which a step does not compute; choose another")
    return optimizer


def _problem(key: str, message: str) -> ConfigError:
    return ConfigError(Problem(message, key, "optimizer"))
