"""Names of architectures, and the YAML files that they stand for.

Nothing here imports pydantic, which would take longer than finding a name: `zoo_core.architectures.load` does.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

from zoo_core.documents.yaml_reader import read_document
from zoo_core.errors import (
    AmbiguousNameError,
    ConfigError,
    UnknownNameError,
    ZooWarning,
    describe,
    did_you_mean,
    warn_caller,
)
from zoo_core.registry import Plugin, Registry, package_folder, squash

__all__ = ["Architectures", "Entry"]

ALIASES = "aliases"


@dataclass(frozen=True)
class Entry:
    """An architecture that a plugin offers."""

    name: str
    path: Path
    plugin: Plugin
    aliases: tuple[str, ...] = ()


class Architectures:
    """The architectures that the plugins of a registry offer."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

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

    def find(self, name: str, owner: str | None = None) -> Entry:
        """Return the architecture that a name, alias or `distribution/name` stands for, in any spelling.

        Args:
            name: the name.
            owner: the distribution that asks: its own architecture comes before one that a stranger calls alike.

        Raises:
            UnknownNameError: there is none; the nearest name is offered.
            AmbiguousNameError: several plugins offer it.
        """
        entries = self._index.get(squash(name), [])
        if owner is not None:
            of_owner = [entry for entry in entries if entry.plugin.belongs_to(owner)]
            entries = of_owner if len(of_owner) == 1 else entries
        if len(entries) > 1:
            choices = " or ".join(f"'{entry.plugin.distribution}/{entry.name}'" for entry in entries)
            labels = " and by ".join(entry.plugin.label for entry in entries)
            raise AmbiguousNameError(f"architecture '{name}' is offered by {labels}; write {choices}")
        if not entries:
            names = [other for entry in self.entries for other in (entry.name, *entry.aliases)]
            near = did_you_mean(name, names).partition("; allowed")[0]
            hint = near or f"; there are {len(self.entries)}, see `zoo list`"
            raise UnknownNameError(f"unknown architecture {describe(name)}{hint}{self.registry.quarantine_note()}")
        return entries[0]

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
                warn_caller(f"aliases of {plugin.label} are left out: {error}", ZooWarning)
                aliases = {}
            for path in root.glob("*.yaml"):
                if path.stem != ALIASES:
                    yield Entry(path.stem, path, plugin, aliases.get(path.stem, ()))


def _aliases(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the further names that a folder gives its architectures, such as those of other libraries.

    Raises:
        ConfigError: the file is there, but is no mapping of names to names.
    """
    if not path.is_file():
        return {}
    document = read_document(path)
    aliases: dict[str, tuple[str, ...]] = {}
    for name, value in document.data.items():
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not all(isinstance(alias, str) for alias in cast("list[object]", names)):
            message = f"expected a name or a list of names, found {describe(value)}"
            raise ConfigError(document.mark((name,)).problem(message, name))
        aliases[name] = tuple(cast("list[str]", names))
    return aliases
