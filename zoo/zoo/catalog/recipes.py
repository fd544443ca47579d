"""Training recipes that plugins offer, by name."""

from __future__ import annotations

from pathlib import Path

from zoo.catalog.architectures import registry
from zoo_core.errors import AmbiguousNameError, UnknownNameError, did_you_mean
from zoo_core.registry import package_folder, squash

__all__ = ["find_recipe", "list_recipes"]


def list_recipes() -> dict[str, list[tuple[Path, str]]]:
    """Return the file and the distribution of every recipe on offer, by name; a name may be offered twice."""
    offered: dict[str, list[tuple[Path, str]]] = {}
    for plugin in registry().plugins:
        if plugin.recipes is not None and plugin.error is None:
            for path in sorted(Path(str(package_folder(plugin.recipes))).glob("*.yaml")):
                offered.setdefault(path.stem, []).append((path, plugin.distribution))
    return offered


def find_recipe(name: str, owner: str | None = None) -> tuple[Path, str]:
    """Return the file of a recipe, and the distribution that it came with.

    Args:
        name: its name, in any spelling.
        owner: the distribution that asks: its own recipe comes before one that a stranger calls alike.

    Raises:
        UnknownNameError: there is none; the nearest name is offered.
        AmbiguousNameError: several distributions offer it.
    """
    offered = list_recipes()
    entries = [entry for other, entries in offered.items() if squash(other) == squash(name) for entry in entries]
    entries = [entry for entry in entries if entry[1] == owner] or entries
    if not entries:
        raise UnknownNameError(f"no recipe '{name}'{did_you_mean(name, offered)}")
    if len(entries) > 1:
        distributions = " and by ".join(distribution for _, distribution in entries)
        raise AmbiguousNameError(f"recipe '{name}' is offered by {distributions}; give the path of the file")
    return entries[0]
