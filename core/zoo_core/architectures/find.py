"""From an architecture's name, file or mapping to its validated config.

    YAML -> `extends` -> overrides -> `${key}` -> the config class of the model

An architecture says only what is its own: `extends` names another one, or a file beside it, whose keys it takes
over. A section that names another component starts empty. Every problem knows the file and line that it came from.

What you would not guess: names are found without pydantic, whose import takes longer than finding them.
"""

from __future__ import annotations

import copy
import fnmatch
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from zoo_core.documents import Bounds, Document, KeyPath, Mark
from zoo_core.documents.interpolation import interpolate
from zoo_core.documents.yaml_reader import read_document, read_value
from zoo_core.errors import (
    AmbiguousNameError,
    ConfigError,
    InputError,
    Problem,
    UnknownNameError,
    ZooError,
    describe,
    did_you_mean,
    dotted,
    one_of,
    reason,
)
from zoo_core.plugin import Kind
from zoo_core.registry import Plugin, Registry, package_folder, squash

if TYPE_CHECKING:
    from zoo_core.config import ModelConfig

__all__ = ["Architectures", "Entry"]

ALIASES = "aliases"
OVERRIDES = "overrides is a sequence of 'key=value' strings"
MAX_EXTENDS = 16

_SELECTORS: tuple[tuple[str, str, Kind], ...] = (
    ("", "model", "model"),
    ("vision", "tower", "vision-tower"),
    ("text", "tower", "text-tower"),
    ("tokenizer", "type", "tokenizer"),
    ("preprocess", "type", "preprocessor"),
)
"""Section, key and kind of every place that names a component."""


@dataclass(frozen=True)
class Entry:
    """An architecture that a plugin offers."""

    name: str
    path: Path
    plugin: Plugin
    aliases: tuple[str, ...] = ()


class Architectures:
    """The architectures that the plugins of a registry offer, and the reading of any other."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._documents: dict[Path, tuple[tuple[int, int, int], Document]] = {}

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Every architecture on offer, sorted by name; nothing but the alias files is read."""
        return tuple(sorted(self._discover(), key=lambda entry: (entry.name, entry.plugin.distribution)))

    def names(self, pattern: str = "*") -> list[str]:
        """Return the names that a pattern means, themselves or by an alias; case does not matter.

        Args:
            pattern: a shell pattern; or a name in any spelling, or where nothing bears that, a part of names.
        """
        lowered, squashed = pattern.lower(), squash(pattern)

        def matching(matches: Callable[[str], bool]) -> list[str]:
            return [entry.name for entry in self.entries if any(map(matches, (entry.name, *entry.aliases)))]

        if any(character in pattern for character in "*?["):
            return matching(lambda name: fnmatch.fnmatchcase(name.lower(), lowered))
        return matching(lambda name: squash(name) == squashed) or matching(
            lambda name: squashed != "" and squashed in squash(name)
        )

    def find(self, name: str) -> Entry:
        """Return the architecture that a name, alias or `distribution/name` stands for, in any spelling.

        Raises:
            UnknownNameError: there is none; the nearest name is offered.
            AmbiguousNameError: several plugins offer it.
        """
        found = self._index.get(squash(name), [])
        if len(found) > 1:
            choices = " or ".join(f"'{entry.plugin.distribution}/{entry.name}'" for entry in found)
            owners = " and by ".join(entry.plugin.label for entry in found)
            raise AmbiguousNameError(f"architecture '{name}' is offered by {owners}; write {choices}")
        if not found:
            known = [other for entry in self.entries for other in (entry.name, *entry.aliases)]
            near = did_you_mean(name, known).partition("; allowed")[0]
            hint = near or f"; there are {len(self.entries)}, see `zoo list`"
            raise UnknownNameError(f"unknown architecture {describe(name)}{hint}{self.registry.quarantine_note()}")
        return found[0]

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
        from zoo_core.config import ModelConfig

        if isinstance(source, ModelConfig) and not overrides:
            return source
        document = self._overridden(self.document(source, within=within), overrides)
        config = self._validated(document)
        if within is not None:
            _check_within(within, config, document, overrides)
        return config

    def document(self, source: str | Path | Mapping[str, Any] | ModelConfig, *, within: Path | None = None) -> Document:
        """Return an architecture with `extends` resolved, but not yet its `${key}` values."""
        check_source(source)
        from zoo_core.config import ModelConfig

        if isinstance(source, ModelConfig):
            return Document(source.data(), {(): Mark(f"{type(source).__name__}")})
        if isinstance(source, Mapping):
            return self._extended(_copied(source), Path(), (), within=within)
        if is_path(source):
            return self._read(Path(source), (), within=within)
        entry = self.find(str(source))
        return self._read(entry.path, (), entry.plugin.distribution)

    @cached_property
    def _index(self) -> dict[str, list[Entry]]:
        index: dict[str, list[Entry]] = {}
        for entry in self.entries:
            for key in {squash(name) for name in (entry.name, *entry.aliases)}:
                index.setdefault(key, []).append(entry)
                index.setdefault(squash(entry.plugin.distribution) + key, []).append(entry)
        return index

    def _discover(self) -> Iterator[Entry]:
        for plugin in self.registry.plugins:
            if plugin.architectures is None:
                continue
            root = Path(str(package_folder(plugin.architectures)))
            try:
                aliases = _aliases(root / f"{ALIASES}.yaml")
            except ConfigError as error:  # costs this plugin its aliases, and nobody anything else
                warnings.warn(f"aliases of {plugin.label} are left out: {error}", stacklevel=2)
                aliases = {}
            for path in root.glob("*.yaml"):
                if path.stem != ALIASES:
                    yield Entry(path.stem, path, plugin, aliases.get(path.stem, ()))

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
        """Lay a document over the one that it extends."""
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
        try:
            target, owner = self._base(base, path, owner)
        except ZooError as error:
            raise ConfigError(mark.problem(str(error), "extends")) from None
        if target.resolve() in below or len(below) >= MAX_EXTENDS:
            chain = " -> ".join(one.name for one in (*below, target))
            reason = "goes round in a circle" if target.resolve() in below else "is too long"
            raise ConfigError(mark.problem(f"the chain {chain} {reason}", "extends"))
        return _merged(self._read(target, below, owner, within), document)

    def _base(self, name: str, path: Path, owner: str | None) -> tuple[Path, str | None]:
        """Find what a file extends; a distribution's own file means its own architecture before a stranger's."""
        if is_path(name):
            return path.parent / name, owner
        offered = self._index.get(squash(name), [])
        own = [entry for entry in offered if owner is not None and entry.plugin.belongs_to(owner)]
        entry = own[0] if len(own) == 1 else self.find(name)
        return entry.path, entry.plugin.distribution

    def _overridden(self, document: Document, overrides: Sequence[str]) -> Document:
        if isinstance(overrides, str):
            raise ConfigError(f"{OVERRIDES}; write overrides=[{describe(overrides)}]")
        if isinstance(overrides, Mapping):
            items = islice(cast("Mapping[object, object]", overrides).items(), 9)
            written = [f"{key}={value if isinstance(value, str) else describe(value)}" for key, value in items]
            raise ConfigError(f"{OVERRIDES}; write overrides={describe(written, 200)}")
        if isinstance(overrides, bytes) or not isinstance(cast("object", overrides), Iterable):
            raise ConfigError(f"{OVERRIDES}, found {describe(cast('object', overrides))}")
        try:
            given = list(islice(overrides, Bounds.values + 1))
        except TypeError:  # a tensor of no dimensions says that it can be iterated over
            raise ConfigError(f"{OVERRIDES}, found {describe(overrides)}") from None
        if len(given) > Bounds.values:
            raise ConfigError(f"there are more than {Bounds.values:,} overrides")
        for override in given:
            if not isinstance(override, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ConfigError(f"an override is a string such as 'vision.layers=2', found {describe(override)}")
            document = _merged(document, _parse_override(override))
        return document

    def _validated(self, document: Document) -> ModelConfig:
        from pydantic import ValidationError

        from zoo_core.config.messages import placed

        found = list(interpolate(document))
        if found:
            raise ConfigError(found)
        config_class = self._model_class(document)
        try:
            return config_class.model_validate(document.data, context={"registry": self.registry})
        except ValidationError as error:
            raise ConfigError(placed(error, document)) from None

    def _model_class(self, document: Document) -> type[ModelConfig]:
        name = document.data.get("model")
        known = sorted({one.spec.name for one in self.registry.components("model")})
        if not isinstance(name, str):
            found = (
                "required key is missing" if name is None else f"expected the name of a model, found {describe(name)}"
            )
            raise ConfigError(document.mark(("model",)).problem(f"{found}; {one_of(known)}", "model"))
        try:
            found_class = self.registry.get("model", name).config_class()
        except ZooError as error:
            raise ConfigError(document.mark(("model",)).problem(str(error), "model")) from None
        return cast("type[ModelConfig]", found_class)


def check_source(source: object) -> None:
    """Raise an `InputError` for what cannot name an architecture, whatever its value."""
    if isinstance(source, str | Path | Mapping):
        return
    from zoo_core.config import ModelConfig

    if not isinstance(source, ModelConfig):
        raise InputError(
            f"expected the name of an architecture, a path, a mapping or a config, found {type(source).__name__}"
        )


def is_path(source: str | Path) -> bool:
    """Tell a file from a name: a file ends in `.yaml` or `.yml`."""
    return isinstance(source, Path) or source.lower().endswith((".yaml", ".yml"))


def _names_inside(folder: Path, name: str) -> bool:
    """Tell whether a file that a file of a folder names is in that folder too."""
    beside = not name.startswith(("/", "~")) and not set(name) & set("\\:\0") and ".." not in Path(name).parts
    return beside and _leads_inside(folder, folder / name)


def _leads_inside(folder: Path, path: Path) -> bool:
    """Tell whether a path leads to something in a folder; the snapshots of the Hub's cache are links to its blobs."""
    own, found = folder.resolve(), path.resolve()
    blobs = own.parent.parent / "blobs" if own.parent.name == "snapshots" else own
    return found.is_relative_to(own) or found.is_relative_to(blobs)


def _check_within(folder: Path, config: ModelConfig, document: Document, overrides: Sequence[str]) -> None:
    """Refuse files and folders of this machine that a model's own config names, but for its tokenizer's folder."""
    from zoo_core.config import TOKENIZER_FOLDER

    asked = tuple(one.partition("=")[0] for one in overrides)
    wrong: list[Problem] = []
    for key, path in config.local_paths():
        if any(key == one or key.startswith(f"{one}.") for one in asked):
            continue
        place = folder.absolute() / TOKENIZER_FOLDER if path == f"./{TOKENIZER_FOLDER}" else Path(path)
        if not place.is_absolute() or not _leads_inside(folder, place):
            what = f"names a place outside of {folder}: {describe(path)}; if you trust it, say overrides=['{key}=...']"
            wrong.append(document.mark(tuple(key.split("."))).problem(what, key))
    if wrong:
        raise ConfigError(wrong)


def _aliases(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the further names that a folder gives its architectures; such as those that it has elsewhere.

    Raises:
        ConfigError: the file is there, but is no mapping of names to names.
    """
    if not path.is_file():
        return {}
    document = read_document(path)
    found: dict[str, tuple[str, ...]] = {}
    for name, value in document.data.items():
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not all(isinstance(one, str) for one in cast("list[object]", names)):
            message = f"expected a name or a list of names, found {describe(value)}"
            raise ConfigError(document.mark((name,)).problem(message, name))
        found[name] = tuple(cast("list[str]", names))
    return found


def _copied(source: Mapping[str, Any]) -> Document:
    """Copy a mapping, so that nothing that is done to it reaches the caller, within the bounds of a file.

    Raises:
        ConfigError: it is nested too deep, as one that holds itself is, has too many values, or keys that are no text.
    """
    marks: dict[KeyPath, Mark] = {}
    bounds, mark = Bounds(), Mark("mapping")

    def copied(value: Any, path: KeyPath) -> Any:
        marks[path] = mark
        if len(path) > bounds.depth:
            what = f"is nested deeper than {bounds.depth} levels, or holds itself"
            raise ConfigError(mark.problem(what, dotted(path[:1])))
        if len(marks) > bounds.values:
            raise ConfigError(mark.problem(f"has more than {bounds.values:,} values"))
        if isinstance(value, Mapping):
            try:  # it may be somebody else's class, which computes its items, or has no end
                items = list(islice(cast("Mapping[Any, Any]", value).items(), bounds.values + 1))
            except Exception as error:
                raise ConfigError(mark.problem(f"cannot be read: {reason(error)}", dotted(path))) from error
            for key in (key for key, _ in items if not isinstance(key, str)):
                raise ConfigError(mark.problem(f"keys are strings, found {describe(key)}", dotted(path)))
            return {key: copied(inner, (*path, key)) for key, inner in items}
        if type(value) in (list, tuple):
            return type(value)(copied(inner, (*path, index)) for index, inner in enumerate(value))
        try:
            return copy.copy(value)
        except Exception:
            raise ConfigError(mark.problem(f"expected plain values, found {describe(value)}", dotted(path))) from None

    return Document(copied(source, ()), marks)


def _qualify(data: dict[str, Any], registry: Registry, owner: str) -> None:
    """Let a distribution's own file mean its own parts, where a stranger claims one of their names."""
    for section, selector, kind in _SELECTORS:
        found = data.get(section) if section else data
        keys = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
        if isinstance(keys.get(selector), str):
            keys[selector] = registry.qualified(kind, keys[selector], owner)


def _merged(base: Document, over: Document) -> Document:
    """Lay `over` on `base`: sections are merged key by key, anything else is replaced."""
    marks = dict(base.marks)
    data = _merge(base.data, over.data, (), marks)
    return Document(data, marks | over.marks)


def _merge(base: dict[str, Any], over: dict[str, Any], path: KeyPath, marks: dict[KeyPath, Mark]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        below = base.get(key)
        if isinstance(value, dict) and isinstance(below, dict) and not _names_another(below, value):
            result[key] = _merge(cast("Any", below), cast("Any", value), (*path, key), marks)
        else:
            if isinstance(below, dict | list):
                for stale in [one for one in marks if one[: len(path) + 1] == (*path, key)]:
                    del marks[stale]
            result[key] = value
    return result


def _names_another(base: Any, over: Any) -> bool:
    """Tell whether a section picks another component than the one below it did."""
    return any(
        key in over and key in base and str(over[key]).rpartition("/")[2] != str(base[key]).rpartition("/")[2]
        for key in ("tower", "type")
    )


def _parse_override(override: str) -> Document:
    """Turn `"vision.layers=2"` into a document of one value, which has the rules and bounds of a file's."""
    mark = Mark(f"override {describe(override)}")
    key, equals, text = override.partition("=")
    if not equals or not re.fullmatch(r"\w+(\.\w+)*", key):
        raise ConfigError(mark.problem("expected key.path=value, such as vision.layers=2"))
    *sections, last = key.split(".")
    if len(sections) >= Bounds.depth:
        raise ConfigError(mark.problem(f"is nested deeper than {Bounds.depth} levels"))
    try:
        data = read_value(text)
    except ConfigError as error:
        raise ConfigError(
            [mark.problem(one.message, ".".join(filter(None, (key, one.key)))) for one in error.problems]
        ) from None
    data = {last: data}
    for section in reversed(sections):
        data = {section: data}
    return Document(data, {(*sections, last): mark})
