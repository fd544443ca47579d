"""Skeletons: the module of a config on the meta device, without memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from zoo.catalog.architectures import registry
from zoo.materialize.meta_init import SkipInit
from zoo_core.config import ModelConfig
from zoo_core.errors import ConfigError, Problem

if TYPE_CHECKING:
    from zoo_core.models.dual_encoder import DualEncoder

__all__ = ["construct", "skeleton"]


def skeleton(config: ModelConfig, towers: tuple[str, ...] | None = None) -> DualEncoder:
    """Build the model on the meta device, without its memory, and hold its size to what the architecture allows.

    Args:
        config: the architecture.
        towers: modalities whose towers are built; all where None.

    Raises:
        ConfigError: it has more than `max_parameters`.
    """
    with torch.device("meta"), SkipInit():
        model = construct(config, tuple(config.towers) if towers is None else towers)
    count = sum(parameter.numel() for parameter in model.parameters())
    if count > config.max_parameters:
        raise ConfigError(Problem(config.excess(count), "max_parameters"))
    model.config = config
    return model


def construct(config: ModelConfig, towers: tuple[str, ...]) -> DualEncoder:
    """Build the towers of a config on the current device, with initial values."""
    component = registry().get("model", config.component)
    return cast("DualEncoder", component.build(config, towers=towers, registry=registry()))
