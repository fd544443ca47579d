"""What there is to build: names and configs, told without importing torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_core.architectures import Architectures
from zoo_core.boundary import checked
from zoo_core.registry import Registry, default_registry

if TYPE_CHECKING:
    from zoo_core.architectures.load import ArchitectureLoader
    from zoo_core.config import ModelConfig

__all__ = ["architectures", "config", "config_of_folder", "list_models", "loader", "registry"]


def registry() -> Registry:
    """Return the registry of the installed plugins."""
    return default_registry()


@cache
def architectures() -> Architectures:
    """Return the architectures of the installed plugins."""
    return Architectures(default_registry())


@cache
def loader() -> ArchitectureLoader:
    """Return what reads them."""
    from zoo_core.architectures.load import ArchitectureLoader  # which imports pydantic

    return ArchitectureLoader(architectures())


@checked
def list_models(pattern: str = "*") -> list[str]:
    """Return the names of the architectures that a pattern means, themselves or by an alias; case does not matter.

    Args:
        pattern: a shell pattern; or a name in any spelling, or where nothing bears that, a part of names.
    """
    return architectures().names(pattern)


@checked
def config(source: str | Path | Mapping[str, Any] | ModelConfig, overrides: Sequence[str] = ()) -> ModelConfig:
    """Return the validated config of an architecture.

    Args:
        source: a name in any spelling, a YAML file, a mapping, or a config.
        overrides: `"key.path=value"`, applied last.

    Raises:
        ConfigError: every problem of the architecture, each with its file, line and key.
        UnknownNameError: no such architecture; the nearest one is named.
    """
    return loader().load(source, overrides)


def config_of_folder(
    source: Path | Mapping[str, Any], folder: str | Path, overrides: Sequence[str] = ()
) -> ModelConfig:
    """Return the validated config of a folder with a model, which may be somebody else's.

    Args:
        source: its YAML file, or the architecture that its files state.
        folder: nothing but an override may name a file or folder outside of it.
        overrides: those of `config`.

    Raises:
        ConfigError: every problem of the architecture.
    """
    return loader().load(source, overrides, within=Path(folder))
