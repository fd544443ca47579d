"""Loading of architectures: from names, files and mappings to configs.

    YAML -> `extends` -> overrides -> `${key}` -> the config class of the model

An architecture holds only what is its own: `extends` names another one, or a file beside it, whose keys it takes
over. Every problem knows the file and line that it came from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from zoo_core.architectures.find import Architectures
from zoo_core.config import TOKENIZER_FOLDER, ModelConfig
from zoo_core.config.messages import placed
from zoo_core.documents import Document, Mark
from zoo_core.documents.extends import ExtendingReader, is_path, leads_inside
from zoo_core.documents.interpolation import interpolate
from zoo_core.documents.mapping_reader import read_mapping
from zoo_core.documents.merge import merge
from zoo_core.documents.overrides import read_overrides
from zoo_core.errors import ConfigError, InputError, Problem, ZooError, describe, one_of
from zoo_core.plugin import Kind

__all__ = ["ArchitectureLoader", "check_source"]


class ArchitectureLoader:
    """Reads the architectures that plugins offer, and any other.

    Args:
        architectures: where names are looked up; its registry is where components are.
    """

    def __init__(self, architectures: Architectures) -> None:
        self.architectures = architectures
        self.registry = architectures.registry
        self._reader = ExtendingReader("an architecture", self._found, self._qualify)

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
            return self._reader.extended(read_mapping(source), within=within)
        if is_path(source):
            return self._reader.read(Path(source), within=within)
        return self._reader.read(*self._found(str(source), None))

    def _found(self, name: str, owner: str | None) -> tuple[Path, str]:
        entry = self.architectures.find(name, owner)
        return entry.path, entry.plugin.distribution

    def _qualify(self, document: Document, owner: str) -> None:
        """Let a distribution's own file mean its own parts, where a stranger claims one of their names."""
        selectors: list[tuple[str, str, Kind]] = [("", "model", "model")]
        for modality in self.registry.modalities:
            selectors.append((modality.section, "tower", modality.tower_kind))
            selectors.append((modality.processor, "type", modality.processor_kind))
        for section, selector, kind in selectors:
            value = document.data.get(section) if section else document.data
            keys = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
            if isinstance(keys.get(selector), str):
                keys[selector] = self.registry.qualified(kind, keys[selector], owner)

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


def _check_within(folder: Path, config: ModelConfig, document: Document, overrides: Sequence[str]) -> None:
    """Refuse files and folders of this machine that a model's own config names, but for its tokenizer's folder."""
    overridden = tuple(override.partition("=")[0] for override in overrides)
    problems: list[Problem] = []
    for key, value in config.local_paths():
        if any(key == prefix or key.startswith(f"{prefix}.") for prefix in overridden):
            continue
        path = folder.absolute() / TOKENIZER_FOLDER if value == f"./{TOKENIZER_FOLDER}" else Path(value)
        if not path.is_absolute() or not leads_inside(folder, path):
            what = f"names a place outside of {folder}: {describe(value)}; if you trust it, say overrides=['{key}=...']"
            problems.append(document.mark(tuple(key.split("."))).problem(what, key))
    if problems:
        raise ConfigError(problems)
