"""Pretrained entries: which weights there are for an architecture, as data that plugins ship.

Each plugin may offer a folder with one YAML file an architecture; its keys are the tags.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from zoo.catalog import architectures
from zoo_core.config import Config
from zoo_core.errors import AmbiguousNameError, ConfigError
from zoo_core.registry import Plugin, folder
from zoo_core.yaml_files import read_document

__all__ = ["Pretrained", "entries_of"]


class Pretrained(Config):
    """One set of weights."""

    path: Annotated[Path, Field(strict=False)]
    """The safetensors file; a relative path starts at the folder of the entry."""
    description: str
    """One line for people."""
    sha256: Annotated[str, Field(pattern=r"[0-9a-f]{64}")] | None = None
    """Digest of the file."""
    activation: Literal["gelu", "gelu_tanh", "quick_gelu"] | None = None
    """What both towers were trained with."""
    recipe: dict[str, Any] | None = None
    """How the weights were made."""


def entries_of(name: str) -> dict[str, Pretrained]:
    """Return the tags of an architecture, by any of its names.

    Raises:
        UnknownNameError: there is no such architecture.
        ConfigError: an entry is malformed.
        AmbiguousNameError: two plugins offer one tag, so whose weights are meant cannot be told.
    """
    entry = architectures().find(name)
    found: dict[str, Pretrained] = {}
    owners: dict[str, Plugin] = {}
    for plugin in architectures().registry.plugins:
        if plugin.pretrained is None:
            continue
        file = Path(str(folder(plugin.pretrained))) / f"{entry.name}.yaml"
        for tag, pretrained in _read(file).items() if file.is_file() else ():
            if tag in found:
                raise AmbiguousNameError(
                    f"pretrained '{tag}' of '{entry.name}' is offered by {owners[tag].label} and by {plugin.label}; "
                    "leave one out with ZOO_DISABLE_PLUGINS"
                )
            found[tag], owners[tag] = pretrained, plugin
    return found


def _read(file: Path) -> dict[str, Pretrained]:
    document = read_document(file)
    found: dict[str, Pretrained] = {}
    for tag, data in document.data.items():
        try:
            entry = Pretrained.parse(data)
        except ConfigError as error:
            raise ConfigError(
                [
                    document.mark((tag, *problem.key.split("."))).problem(problem.message, f"{tag}.{problem.key}")
                    for problem in error.problems
                ]
            ) from None
        found[tag] = entry.model_copy(update={"path": file.parent / entry.path})
    return found
