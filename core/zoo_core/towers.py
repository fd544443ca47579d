"""From the config of a tower to the tower, held to what its kind promises."""

from __future__ import annotations

from typing import TypeVar

from zoo_core.config import TowerConfig
from zoo_core.errors import ConfigError, PluginError, Problem
from zoo_core.interfaces import Tower
from zoo_core.registry import Registry

__all__ = ["build_tower"]

T = TypeVar("T", bound=Tower)


def build_tower(registry: Registry, config: TowerConfig, embed_dim: int, interface: type[T]) -> T:
    """Build the tower of a config and check that it is what its kind promises.

    Raises:
        ConfigError: the config does not go with this `embed_dim`; every problem is named.
        PluginError: the factory returned something else, or a tower of another width.
        MissingDependencyError: a package that it needs is not installed.
    """
    component = registry.get(config.kind, config.component)
    broken = [Problem(message, key, type(config).__name__) for key, message in config.rules_for(embed_dim)]
    if broken:
        raise ConfigError(broken)
    tower = component.build(config, embed_dim=embed_dim)
    if not isinstance(tower, interface):
        raise PluginError(f"{component}: its factory must return a {interface.__name__}, found {type(tower).__name__}")
    if getattr(tower, "output_dim", None) != embed_dim:
        raise PluginError(
            f"{component}: its output_dim must be the embed_dim {embed_dim}, found {getattr(tower, 'output_dim', None)}"
        )
    return tower
