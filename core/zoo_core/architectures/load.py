"""Loading of architectures: from names, files and mappings to configs.

    YAML -> `extends` -> overrides -> `${key}` -> the config class of the model

An architecture holds only what is its own: `extends` names another one, or a file beside it, whose keys it takes
over. Every problem knows the file and line that it came from.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from zoo_core.architectures.find import Architectures, is_path
from zoo_core.architectures.merge import merge
from zoo_core.architectures.overrides import read_overrides
from zoo_core.config import TOKENIZER_FOLDER, ModelConfig
from zoo_core.config.messages import placed
from zoo_core.documents import Document, Mark
from zoo_core.documents.interpolation import interpolate
from zoo_core.documents.mapping_reader import read_mapping
from zoo_core.documents.yaml_reader import read_document
from zoo_core.errors import ConfigError, InputError, Problem, ZooError, describe, one_of
from zoo_core.plugin import Kind
from zoo_core.registry import Registry

__all__ = ["ArchitectureLoader", "check_source"]

MAX_EXTENDS = 16


class ArchitectureLoader:
    """Reads the architectures that plugins offer, and any other.

    Args:
        architectures: where names are looked up; its registry is where components are.
    """

    def __init__(self, architectures: Architectures) -> None:
        self.architectures = architectures
        self.registry = architectures.registry
        self._documents: dict[Path, tuple[tuple[int, int, int], Document]] = {}

    def load(
        self,
        source: str | Path | Mapping[str, Any] | ModelConfig,
        overrides: Sequence[str] = (),
        *,
        within: Path | None = None,
    ) -> ModelConfig:
        """Return the validated config of an architecture.

        Args:
            source: a name, a path that ends in `.yaml` or `.yml`, a mapping, or a config.
            overrides: `"key.path=value"`, applied last; values are read as YAML.
            within: the folder that the source belongs to, which may be somebody else's: nothing but an override may
                name a file or folder outside of it.

        Raises:
            ConfigError: with every problem found, each with its file and line.
            UnknownNameError: no such architecture.
        """
        if isinstance(source, ModelConfig) and not overrides:
            return source
        document = self.document(source, within=within)
        for override in read_overrides(overrides):
            document = merge(document, override)
        problems = list(interpolate(document))
        if problems:
            raise ConfigError(problems)
        config_class = self._model_class(document)
        try:
            config = config_class.model_validate(document.data, context={"registry": self.registry})
        except ValidationError as error:
            raise ConfigError(placed(error, document)) from None
        if within is not None:
            _check_within(within, config, document, overrides)
        return config

    def document(self, source: str | Path | Mapping[str, Any] | ModelConfig, *, within: Path | None = None) -> Document:
        """Return an architecture with `extends` resolved, but not yet its `${key}` values."""
        check_source(source)
        if isinstance(source, ModelConfig):
            return Document(source.data(), {(): Mark(f"{type(source).__name__}")})
        if isinstance(source, Mapping):
            return self._extended(read_mapping(source), Path(), (), within=within)
        if is_path(source):
            return self._read(Path(source), (), within=within)
        entry = self.architectures.find(str(source))
        return self._read(entry.path, (), entry.plugin.distribution)

    def _read(
        self, path: Path, below: tuple[Path, ...], owner: str | None = None, within: Path | None = None
    ) -> Document:
        document = self._fresh(path)
        if owner is not None:
            _qualify(document.data, self.registry, owner)
        return self._extended(document, path, (*below, path.resolve()), owner, within)

    def _fresh(self, path: Path) -> Document:
        """Return what a file holds now; a file that did not change is read once, since many extend the same few."""
        try:
            info = path.stat()
        except OSError:
            return read_document(path)
        stamp = info.st_mtime_ns, info.st_size, info.st_ino
        if self._documents.get(path, (None, None))[0] != stamp:
            self._documents[path] = stamp, read_document(path)
        _, document = self._documents[path]
        return Document(copy.deepcopy(document.data), dict(document.marks))

    def _extended(
        self,
        document: Document,
        path: Path,
        below: tuple[Path, ...],
        owner: str | None = None,
        within: Path | None = None,
    ) -> Document:
        """Lay a document over the one that it extends.

        Args:
            document: the content of a file or mapping.
            path: where it stands; files that it extends are named from there.
            below: the files that led here, each extending the next.
            owner: the distribution that the file came with.
            within: as in `load`.
        """
        if "extends" not in document.data:
            return document
        mark = document.mark(("extends",))
        base = document.data.pop("extends")
        if not isinstance(base, str):
            raise ConfigError(
                mark.problem(f"expected the name of an architecture or a file, found {describe(base)}", "extends")
            )
        if not is_path(base):
            within = None  # the files of an installed plugin
        elif within is not None and not _names_inside(within, base):
            what = f"names a file outside of {within}: {describe(base)}; allowed: an architecture, or a file in it"
            raise ConfigError(mark.problem(what, "extends"))
        target = path.parent / base
        if not is_path(base):
            try:
                entry = self.architectures.find(base, owner)
            except ZooError as error:
                raise ConfigError(mark.problem(str(error), "extends")) from None
            target, owner = entry.path, entry.plugin.distribution
        if target.resolve() in below or len(below) >= MAX_EXTENDS:
            chain = " -> ".join(file.name for file in (*below, target))
            what = "goes round in a circle" if target.resolve() in below else "is too long"
            raise ConfigError(mark.problem(f"the chain {chain} {what}", "extends"))
        return merge(self._read(target, below, owner, within), document)

    def _model_class(self, document: Document) -> type[ModelConfig]:
        name = document.data.get("model")
        if not isinstance(name, str):
            names = sorted({component.spec.name for component in self.registry.components("model")})
            what = (
                "required key is missing" if name is None else f"expected the name of a model, found {describe(name)}"
            )
            raise ConfigError(document.mark(("model",)).problem(f"{what}; {one_of(names)}", "model"))
        try:
            config_class = self.registry.get("model", name).config_class()
        except ZooError as error:
            raise ConfigError(document.mark(("model",)).problem(str(error), "model")) from None
        return cast("type[ModelConfig]", config_class)


def check_source(source: object) -> None:
    """Raise an `InputError` for what cannot name an architecture, whatever its value."""
    if not isinstance(source, str | Path | Mapping | ModelConfig):
        raise InputError(
            f"expected the name of an architecture, a path, a mapping or a config, found {type(source).__name__}"
        )


def _names_inside(folder: Path, name: str) -> bool:
    """Tell whether a file that a file of a folder names is in that folder too."""
    is_relative = not name.startswith(("/", "~")) and not set(name) & set("\\:\0") and ".." not in Path(name).parts
    return is_relative and _leads_inside(folder, folder / name)


def _leads_inside(folder: Path, path: Path) -> bool:
    """Tell whether a path leads to something in a folder; the snapshots of the Hub's cache are links to its blobs."""
    root, target = folder.resolve(), path.resolve()
    blobs = root.parent.parent / "blobs" if root.parent.name == "snapshots" else root
    return target.is_relative_to(root) or target.is_relative_to(blobs)


def _check_within(folder: Path, config: ModelConfig, document: Document, overrides: Sequence[str]) -> None:
    """Refuse files and folders of this machine that a model's own config names, but for its tokenizer's folder."""
    overridden = tuple(override.partition("=")[0] for override in overrides)
    problems: list[Problem] = []
    for key, value in config.local_paths():
        if any(key == prefix or key.startswith(f"{prefix}.") for prefix in overridden):
            continue
        path = folder.absolute() / TOKENIZER_FOLDER if value == f"./{TOKENIZER_FOLDER}" else Path(value)
        if not path.is_absolute() or not _leads_inside(folder, path):
            what = f"names a place outside of {folder}: {describe(value)}; if you trust it, say overrides=['{key}=...']"
            problems.append(document.mark(tuple(key.split("."))).problem(what, key))
    if problems:
        raise ConfigError(problems)


def _qualify(data: dict[str, Any], registry: Registry, owner: str) -> None:
    """Let a distribution's own file mean its own parts, where a stranger claims one of their names."""
    selectors: list[tuple[str, str, Kind]] = [("", "model", "model")]
    for modality in registry.modalities:
        selectors.append((modality.section, "tower", modality.tower_kind))
        selectors.append((modality.processor, "type", modality.processor_kind))
    for section, selector, kind in selectors:
        value = data.get(section) if section else data
        keys = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
        if isinstance(keys.get(selector), str):
            keys[selector] = registry.qualified(kind, keys[selector], owner)
