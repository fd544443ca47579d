"""Architectures out of other libraries' configs, through the importers that plugins offer.

An importer says all that the other config says; what is our default anyway is left out here, so that no importer
needs to know our defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from zoo.catalog.architectures import load_config, registry
from zoo_core.config import ComponentConfig, Config
from zoo_core.errors import ConfigError, InputError
from zoo_core.files.atomic import atomic_write

__all__ = ["as_yaml", "import_architecture", "write_architecture"]


def import_architecture(format: str, path: Path) -> dict[str, Any]:
    """Return the architecture that another library's config describes, as a mapping for `zoo.build`.

    Args:
        format: name of an importer, such as `open_clip`.
        path: the config.

    Raises:
        UnknownNameError: no plugin imports this format.
        ConfigError: the config cannot be used; every key that is to blame is named.
        PluginError: the importer is broken.
    """
    data = registry().importer(format)(path)
    try:
        return _essential(data, load_config(data))
    except ConfigError as error:
        raise ConfigError(
            [replace(problem, source=f"{path} as an architecture") for problem in error.problems]
        ) from None


def write_architecture(architecture: Mapping[str, Any], path: Path, *, force: bool = False) -> None:
    """Write an architecture as YAML.

    Raises:
        InputError: the name does not end in .yaml or .yml, or there is a file and `force` is not set.
        SaveError: the file cannot be written.
    """
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise InputError(f"{path}: the file of an architecture ends in .yaml or .yml")
    if path.exists() and not force:
        raise InputError(f"{path} is there already; give --force to replace it")
    with atomic_write(path) as (scratch,):
        scratch.write_text(as_yaml(architecture), encoding="utf-8")


def as_yaml(architecture: Mapping[str, Any]) -> str:
    """Return an architecture as the text of a YAML file."""
    import yaml

    return yaml.safe_dump(dict(architecture), sort_keys=False, default_flow_style=None, width=100)


def _essential(data: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """Return the values of `data` without those that are defaults of its config, and without empty sections."""
    essential: dict[str, Any] = {}
    for key, value in data.items():
        parsed: Any = getattr(config, key)
        picks_component = isinstance(config, ComponentConfig) and key == config.selector
        if isinstance(parsed, Config) and isinstance(value, Mapping):
            section = _essential(cast("Mapping[str, Any]", value), parsed)
            if section:
                essential[key] = section
        elif picks_component or parsed != type(config).model_fields[key].default:
            essential[key] = value
    return essential
