"""Checks of one component: of its config, and of a tower."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo_core.config import ComponentConfig, TowerConfig
from zoo_core.errors import PluginError
from zoo_core.registry import Component
from zoo_core.testing.configs import check_config
from zoo_core.testing.failure import fail
from zoo_core.testing.towers import check_tower

__all__ = ["check_component"]


def check_component(component: Component, values: Mapping[str, Any] | ComponentConfig, *, embed_dim: int = 16) -> None:
    """Check a component's config, and of a tower all that its kind and its capabilities promise.

    Args:
        component: one of those that `check_plugin` returns, or `registry.get(kind, name)`.
        values: a small config of it, with or without the key that names the component.
        embed_dim: width of the feature that a tower is built for.

    Raises:
        BrokenPromiseError: a promise is broken.
    """
    try:
        config = check_config(component, values)
        if isinstance(config, TowerConfig):
            check_tower(component, config, embed_dim=embed_dim)
    except PluginError as error:  # users meet it in this form
        fail(str(error))
