"""Pretrained entries, which list the weights of architectures.

They are data that plugins ship: a folder with one YAML file an architecture, whose keys are the tags.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from zoo.catalog.architectures import architectures, list_models
from zoo.catalog.state_dict_shapes import names, shapes_of
from zoo_core.boundary import checked
from zoo_core.config import Config
from zoo_core.documents.yaml_reader import read_document
from zoo_core.errors import AmbiguousNameError, ConfigError, UnknownNameError, describe, did_you_mean
from zoo_core.registry import Plugin, package_folder
from zoo_core.text.cleaning import CleaningOrNone
from zoo_core.text.contract import Padding

__all__ = ["HubWeights", "Pretrained", "alike_with", "entries_of", "licence_for_people", "list_pretrained"]

UNKNOWN = "unknown"
"""The licence of weights of which nobody found one."""


class HubWeights(Config):
    """A file of a repository of the Hugging Face Hub."""

    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    """The repository."""
    file: Annotated[str, Field(min_length=1)] | None = None
    """Name of the file, where it is not the one that repositories of open_clip have."""
    revision: Annotated[str, Field(min_length=1)] | None = None
    """Branch, tag or commit; the main branch where null."""


class TextTraining(Config):
    """How captions were read in a training; null is what nobody looked up. Shapes tell the context length."""

    cleaning: CleaningOrNone | None = None
    """How text was normalised."""
    padding: Padding | None = None
    """What padding was to a feature: `read`, `masked` or `unreached`."""


class Pretrained(Config):
    """One set of weights: a file beside the entry, or one of the Hub."""

    path: Annotated[Path, Field(strict=False)] | None = None
    """The file of weights, of any container; a relative path starts at the folder of the entry."""
    hub: HubWeights | None = None
    """Where it is downloaded from."""
    description: str = ""
    """One line for people."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Digest of the file; not checked where null."""
    license: Annotated[str, Field(min_length=1)] = UNKNOWN
    """What the weights may be used under, as the Hub spells it (`mit`, `cc-by-nc-4.0`). `cc-by-nc` is that licence in a
    version that its source does not tell; `unknown` permits nothing: ask at `terms`."""
    license_page: Annotated[str, Field(pattern=r"https://\S+")] | None = None
    """Where the authors would say it, if that is not the page of the repository."""
    preprocess: dict[str, Any] = {}
    """Keys of the architecture's preprocessing that were others when these weights were trained."""
    activation: Literal["gelu", "gelu_tanh", "quick_gelu"] | None = None
    """What both towers were trained with."""
    text: TextTraining = TextTraining()
    """How captions were read, where the architecture has to be held to it."""
    recipe: dict[str, Any] | None = None
    """How the weights were made."""

    def rules(self) -> Iterator[tuple[str, str]]:
        """Refuse weights that are nowhere, or both in a file and on the Hub."""
        yield from super().rules()
        if (self.path is None) is (self.hub is None):
            yield "path", "says where the weights are, or hub does: expected one of the two"

    @property
    def place(self) -> str:
        """Where the weights are, for people."""
        return self.hub.repo if self.hub else self.path.name if self.path else ""

    @property
    def terms(self) -> str | None:
        """The address where the authors of the weights would state their licence; None for files of nobody's page."""
        return self.license_page or (f"https://huggingface.co/{self.hub.repo}" if self.hub else None)

    def overrides(self) -> list[str]:
        """Return the changes of the architecture that go with these weights."""
        return [f"preprocess.{key}={json.dumps(value)}" for key, value in self.preprocess.items()]


def licence_for_people(license: str, terms: str | None) -> str:
    """Return a licence, with the address to ask at where it is unknown."""
    return f"{UNKNOWN}, see {terms}" if license == UNKNOWN and terms else license


def entries_of(name: str) -> dict[str, Pretrained]:
    """Return the tags of an architecture, by any of its names.

    Raises:
        UnknownNameError: there is no such architecture.
        ConfigError: an entry is malformed.
        AmbiguousNameError: two plugins offer one tag, so whose weights are meant cannot be told.
    """
    entry = architectures().find(name)
    entries: dict[str, Pretrained] = {}
    owners: dict[str, Plugin] = {}
    for plugin in architectures().registry.plugins:
        if plugin.pretrained is None:
            continue
        file = Path(str(package_folder(plugin.pretrained))) / f"{entry.name}.yaml"
        for tag, pretrained in _read(file).items() if file.is_file() else ():
            if tag in entries:
                raise AmbiguousNameError(
                    f"pretrained '{tag}' of '{entry.name}' is offered by {owners[tag].label} and by {plugin.label}; "
                    "leave one out with ZOO_DISABLE_PLUGINS"
                )
            entries[tag], owners[tag] = pretrained, plugin
    return entries


@checked
def list_pretrained(pattern: str = "*", *, license: str | None = None) -> dict[str, dict[str, Pretrained]]:
    """Return the tags of every architecture that has some.

    Args:
        pattern: which architectures, as in `list_models`.
        license: only the weights under this licence, such as `"apache-2.0"`.

    Raises:
        UnknownNameError: nothing at all is under that licence.
    """
    tags_of = {name: entries_of(name) for name in list_models(pattern)}
    if license is not None:
        licenses = {entry.license for name in list_models() for entry in entries_of(name).values()}
        if license.lower() not in map(str.lower, licenses):
            raise UnknownNameError(
                f"no weights are under the licence {describe(license)}{did_you_mean(license, licenses)}"
            )
        tags_of = {
            name: {tag: entry for tag, entry in tags.items() if entry.license.lower() == license.lower()}
            for name, tags in tags_of.items()
        }
    return {name: tags for name, tags in tags_of.items() if tags}


def alike_with(name: str, tag: str) -> list[str]:
    """Return the architectures that have a tag, and the names and shapes of the architecture `name`."""
    shapes = shapes_of(name)
    others = (other for other in names() if other != name and shapes_of(other) == shapes)
    return [other for other in others if tag in entries_of(other)]


def _read(file: Path) -> dict[str, Pretrained]:
    document = read_document(file)
    entries: dict[str, Pretrained] = {}
    for tag, data in document.data.items():
        try:
            entry = Pretrained.parse(data)
        except ConfigError as error:
            problems = document.locate(error, (tag,)).problems
            raise ConfigError([replace(problem, key=f"{tag}.{problem.key}") for problem in problems]) from None
        entries[tag] = entry.model_copy(update={"path": file.parent / entry.path}) if entry.path else entry
    return entries
