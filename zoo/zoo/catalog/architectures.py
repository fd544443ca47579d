"""Names and configs of the installed architectures, without torch."""

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

__all__ = ["architectures", "list_models", "load_config", "loader", "registry"]


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


def load_config(
    source: str | Path | Mapping[str, Any] | ModelConfig, overrides: Sequence[str] = (), *, within: Path | None = None
) -> ModelConfig:
    """Return the validated config of an architecture.

    Args:
        source: a name in any spelling, a YAML file, a mapping, or a config.
        overrides: `"key.path=value"`, applied last.
        within: the folder of a model, which may be somebody else's: nothing but an override may name a file or folder
            outside of it.

    Raises:
        ConfigError: every problem of the architecture, each with its file, line and key.
        UnknownNameError: no such architecture; the nearest one is named.
    """
    return loader().load(source, overrides, within=within)
