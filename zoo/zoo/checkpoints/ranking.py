"""Ranking of architectures by the names and shapes of a checkpoint.

Containers, wrappers and formats of other libraries are no difference, and neither is whether the text tower stands at
the top or below `text.`: every model loads both. A file of one tower is ranked by that tower. What names and shapes
cannot tell, such as the activation, is named. Zoo's own architectures are ranked by a table, without torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from zoo.catalog.architectures import load_config, registry
from zoo.catalog.state_dict_shapes import Shape, names, shapes_of

if TYPE_CHECKING:
    from zoo_core.config import ModelConfig

__all__ = ["CONFIG_KEY", "COUNTED", "OWN", "Candidate", "Shaped", "leaves", "likeness", "rank"]

CONFIG_KEY = "zoo.config"
"""Under which a safetensors file that `zoo.save` wrote carries its architecture."""

COUNTED = "position_ids"
"""Counted numbers that older versions of transformers saved with the weights; no model needs them."""

Shaped = tuple["ModelConfig", Mapping[str, Shape]]
"""An architecture, and name and shape of each of its entries."""

OWN = "clip-zoo"
"""The distribution of the architectures of the table, whose names a stranger may claim too."""

LEAST = 0.1
"""Where fewer entries are equal, they are those that any model has, such as a logit scale."""


@dataclass(frozen=True)
class Candidate:
    """Architectures that are alike in names and shapes, and how those of the file fit them.

    Attributes:
        names: the architectures; more than one where only their configs differ. One that the file states for itself
            has the path of the file for its name.
        fit: entries that are equal, as a share of all that either has: 1.0 if every entry fits.
        missing: entries that the file lacks.
        unexpected: entries that only the file has.
        misshapen: entries of another shape, with the shape in the file and that of the architecture.
        untold: keys of the configs that names and shapes cannot tell, with the value of each of `names`.
        towers: what the file holds: all towers of the architectures, such as `("image", "text")`, or one of them, to
            which all of the above is confined.
    """

    names: tuple[str, ...]
    fit: float
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: dict[str, tuple[Shape, Shape]]
    untold: dict[str, tuple[Any, ...]]
    towers: tuple[str, ...]


def rank(shapes: Mapping[str, Shape], *, limit: int, others: Mapping[str, Shaped] | None = None) -> list[Candidate]:
    """Return the architectures of zoo, and `others`, that names and shapes fit best, the best first."""
    others = others or {}
    expected = {
        name: _canonical(others[name][1] if name in others else shapes_of(name)) for name in (*others, *names())
    }
    ranked: list[tuple[float, list[str], Mapping[str, Shape], Mapping[str, Shape], str | None]] = []
    for tower, held in _readings(_canonical(shapes)):
        groups: dict[frozenset[tuple[str, Shape]], list[str]] = {}  # architectures of equal names and shapes
        for name, entries in expected.items():
            groups.setdefault(frozenset(_of_tower(entries, tower).items()), []).append(name)
        ranked += [(_fit(held, dict(group)), alike, dict(group), held, tower) for group, alike in groups.items()]
    ranked.sort(key=lambda candidate: (-candidate[0], candidate[1]))
    return [
        _candidate(held, entries, alike, fit, tower, others)
        for fit, alike, entries, held, tower in ranked[:limit]
        if fit >= LEAST
    ]


def _prefixes() -> dict[str, str]:
    """Return how the entries of each tower begin; those of the text tower begin in any other way."""
    return {modality.name: f"{modality.module}." for modality in registry().modalities if modality.name != "text"}


def _readings(entries: Mapping[str, Shape]) -> Iterator[tuple[str | None, Mapping[str, Shape]]]:
    """Yield the tower that a file may hold, and its entries; None where it holds those of several, or all entries."""
    prefixes = _prefixes()
    alone = {key: shape for key, shape in entries.items() if not key.startswith("logit_")}
    towers = {next((tower for tower, prefix in prefixes.items() if key.startswith(prefix)), "text") for key in alone}
    if len(towers) != 1:
        yield None, entries
    else:
        yield next(iter(towers)), alone
    if towers == {"text"}:  # or names of another tower, as its own state dict has them
        for tower, prefix in prefixes.items():
            yield tower, {prefix + key: shape for key, shape in alone.items()}


def _of_tower(entries: Mapping[str, Shape], tower: str | None) -> Mapping[str, Shape]:
    """Return the entries of one tower, without logit scale and bias; all entries where it is None."""
    if tower is None:
        return entries
    prefixes = _prefixes()
    if tower in prefixes:
        return {key: shape for key, shape in entries.items() if key.startswith(prefixes[tower])}
    others = ("logit_", *prefixes.values())
    return {key: shape for key, shape in entries.items() if not key.startswith(others)}


def likeness(one: Mapping[str, Shape], other: Mapping[str, Shape]) -> float:
    """Return the entries that are equal, as a share of all that either has."""
    return _fit(_canonical(one), _canonical(other))


def leaves(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the values of nested mappings by their dotted keys."""
    values: list[tuple[str, Any]] = []
    for key, value in data.items():
        inner = isinstance(value, Mapping)
        values += leaves(cast("Mapping[str, Any]", value), f"{prefix}{key}.") if inner else [(prefix + key, value)]
    return values


def _canonical(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return entries by names that do not depend on the format; one value has no shape."""
    return {
        key.removeprefix("text."): () if shape == (1,) and key.rpartition(".")[2].startswith("logit_") else shape
        for key, shape in shapes.items()
        if not key.endswith(COUNTED)
    }


def _fit(held: Mapping[str, Shape], expected: Mapping[str, Shape]) -> float:
    """Return the intersection over union of two sets of entries."""
    return len(held.items() & expected.items()) / len(held.keys() | expected.keys())


def _candidate(
    held: Mapping[str, Shape],
    expected: Mapping[str, Shape],
    alike: list[str],
    fit: float,
    tower: str | None,
    others: Mapping[str, Shaped],
) -> Candidate:
    configs = [others[name][0] if name in others else load_config(f"{OWN}/{name}") for name in alike]
    sections = ("",)
    if tower is not None:
        modality = registry().modality(tower)
        sections = (f"{modality.section}.", f"{modality.processor}.")
    # what the shapes do not tell: the keys in which the configs differ, with the value of each
    data = [dict(leaves(config.data())) for config in configs]
    keys = dict.fromkeys(key for of_config in data for key in of_config)
    values = {
        key: tuple(of_config.get(key) for of_config in data)
        for key in keys
        if key != "description" and key.startswith(sections)
    }
    return Candidate(
        names=tuple(alike),
        fit=fit,
        missing=tuple(sorted(expected.keys() - held.keys())),
        unexpected=tuple(sorted(held.keys() - expected.keys())),
        misshapen={
            key: (held[key], expected[key])
            for key in sorted(held.keys() & expected.keys())
            if held[key] != expected[key]
        },
        untold={key: value for key, value in values.items() if any(other != value[0] for other in value)},
        towers=tuple(configs[0].towers) if tower is None else (tower,),
    )
