"""Which architecture a checkpoint belongs to, told from the names and shapes in it; no tensor is read.

Containers, wrappers and layouts of other libraries are no difference, and neither is whether the text tower stands at
the top or below `text.`: every model loads both. A file of one tower is told by that tower. What names and shapes
cannot tell, such as the activation, is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from zoo.catalog import config
from zoo.layouts import open_weights
from zoo.parameter_shapes import Shape, names, shapes_of

__all__ = ["COUNTED", "Candidate", "identify", "leaves", "likeness", "rank"]

TOWERS: tuple[str, ...] = ("image", "text")
_VISUAL = "visual."
_SECTIONS: dict[tuple[str, ...], tuple[str, ...]] = {
    TOWERS: ("",),
    ("image",): ("vision.", "preprocess."),
    ("text",): ("text.", "tokenizer."),
}
"""How the keys of configs begin that say something of towers."""
COUNTED = "position_ids"
"""Counted numbers that older versions of transformers saved with the weights; no model needs them."""


@dataclass(frozen=True)
class Candidate:
    """Architectures that are alike in names and shapes, and how those of the file fit them.

    Attributes:
        names: the architectures; more than one where only their configs differ.
        fit: entries that are equal, as a share of all that either has: 1.0 if every entry fits.
        missing: entries that the file lacks.
        unexpected: entries that only the file has.
        misshapen: entries of another shape, with the shape in the file and that of the architecture.
        untold: keys of the configs that names and shapes cannot tell, with the value of each of `names`.
        towers: what the file holds: `("image", "text")`, or one of them, to which all of the above is confined.
    """

    names: tuple[str, ...]
    fit: float
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: dict[str, tuple[Shape, Shape]]
    untold: dict[str, tuple[Any, ...]]
    towers: tuple[str, ...] = TOWERS


def identify(path: str | Path, *, limit: int = 5, weights: str | None = None) -> list[Candidate]:
    """Return the architectures of zoo that a checkpoint's names and shapes fit best, the best first.

    Args:
        path: a file or folder of any container and layout that an installed plugin knows.
        limit: how many candidates to return.
        weights: which state dict of a training checkpoint; see `zoo.build`.

    Raises:
        CheckpointError: it holds no weights that can be read.
    """
    entries = open_weights(path, weights=weights).entries
    return rank({key: info.shape for key, info in entries.items()}, limit=limit)


def rank(shapes: Mapping[str, Shape], *, limit: int) -> list[Candidate]:
    """Return the architectures that names and shapes fit best, the best first."""
    ranked: list[tuple[float, list[str], dict[str, Shape], Mapping[str, Shape], tuple[str, ...]]] = []
    for towers, found in _readings(_canonical(shapes)):
        groups: dict[tuple[tuple[str, Shape], ...], list[str]] = {}
        for name in names():
            entries = _of_towers(_canonical(shapes_of(name)), towers)
            groups.setdefault(tuple(sorted(entries.items())), []).append(name)
        ranked += [(_fit(found, dict(one)), alike, dict(one), found, towers) for one, alike in groups.items()]
    ranked.sort(key=lambda one: (-one[0], one[1]))
    return [
        _candidate(found, entries, alike, fit, towers) for fit, alike, entries, found, towers in ranked[:limit] if fit
    ]


def _readings(found: Mapping[str, Shape]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Shape]]]:
    """Yield what a file may hold: both towers, or where no entry is of the other one, a tower and nothing else."""
    alone = _of_towers(found, ())
    visual = [key.startswith(_VISUAL) for key in alone]
    if not visual or (any(visual) and not all(visual)):
        yield TOWERS, found
    elif all(visual):
        yield ("image",), alone
    else:
        yield ("text",), alone
        yield ("image",), {_VISUAL + key: shape for key, shape in alone.items()}  # as its own state dict names them


def _of_towers(entries: Mapping[str, Shape], towers: tuple[str, ...]) -> Mapping[str, Shape]:
    """Return the entries of one tower, or all of both; those of none are all but the logit scale and bias."""
    if towers == TOWERS:
        return entries
    own = {key: shape for key, shape in entries.items() if not key.startswith("logit_")}
    return (
        own
        if not towers
        else {key: shape for key, shape in own.items() if key.startswith(_VISUAL) is (towers == ("image",))}
    )


def likeness(one: Mapping[str, Shape], other: Mapping[str, Shape]) -> float:
    """Return the entries that are equal, as a share of all that either has."""
    return _fit(_canonical(one), _canonical(other))


def leaves(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the values of nested mappings by their dotted keys."""
    found: list[tuple[str, Any]] = []
    for key, value in data.items():
        inner = isinstance(value, Mapping)
        found += leaves(cast("Mapping[str, Any]", value), f"{prefix}{key}.") if inner else [(prefix + key, value)]
    return found


def _canonical(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return entries by names that do not depend on the layout; one value has no shape."""
    return {
        key.removeprefix("text."): () if shape == (1,) and key.rpartition(".")[2].startswith("logit_") else shape
        for key, shape in shapes.items()
        if not key.endswith(COUNTED)
    }


def _fit(found: Mapping[str, Shape], expected: Mapping[str, Shape]) -> float:
    equal = len(found.items() & expected.items())
    return equal / len(found.keys() | expected.keys())


def _candidate(
    found: Mapping[str, Shape], expected: Mapping[str, Shape], alike: list[str], fit: float, towers: tuple[str, ...]
) -> Candidate:
    return Candidate(
        names=tuple(alike),
        fit=fit,
        missing=tuple(sorted(expected.keys() - found.keys())),
        unexpected=tuple(sorted(found.keys() - expected.keys())),
        misshapen={
            key: (found[key], expected[key])
            for key in sorted(found.keys() & expected.keys())
            if found[key] != expected[key]
        },
        untold=_untold(alike, _SECTIONS[towers]),
        towers=towers,
    )


def _untold(alike: list[str], sections: tuple[str, ...]) -> dict[str, tuple[Any, ...]]:
    """Return the keys in which the configs of architectures of equal shapes differ, with the value of each."""
    flat = [dict(leaves(config(name).data())) for name in alike]
    keys = [
        key
        for key in dict.fromkeys(key for one in flat for key in one)
        if key != "description" and key.startswith(sections)
    ]
    values = {key: tuple(one.get(key) for one in flat) for key in keys}
    return {key: value for key, value in values.items() if any(other != value[0] for other in value)}
