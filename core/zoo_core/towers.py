"""From the config of a tower to the tower, held to what its kind promises."""

from __future__ import annotations

from typing import TypeVar

from zoo_core.config import ComponentConfig
from zoo_core.errors import PluginError
from zoo_core.interfaces import Tower
from zoo_core.registry import Registry

__all__ = ["build_tower"]

T = TypeVar("T", bound=Tower)


def build_tower(registry: Registry, config: ComponentConfig, embed_dim: int, interface: type[T]) -> T:
    """Build the tower of a config and check that it is what its kind promises.

    Raises:
        PluginError: the factory returned something else, or a tower of another width.
        MissingDependencyError: a package that it needs is not installed.
    """
    component = registry.get(config.kind, config.component)
    tower = component.build(config, embed_dim=embed_dim)
    if not isinstance(tower, interface):
        raise PluginError(f"{component}: its factory must return a {interface.__name__}, found {type(tower).__name__}")
    if getattr(tower, "output_dim", None) != embed_dim:
        raise PluginError(
            f"{component}: its output_dim must be the embed_dim {embed_dim}, found {getattr(tower, 'output_dim', None)}"
        )
    return tower
