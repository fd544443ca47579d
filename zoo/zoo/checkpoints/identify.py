"""Which architecture a checkpoint belongs to, told from the names and shapes in it; no tensor is read.

Containers, wrappers and layouts of other libraries are no difference, and neither is whether the text tower stands at
the top or below `text.`: every model loads both. A file of one tower is told by that tower. What names and shapes
cannot tell, such as the activation, is named.

Zoo's own architectures are ranked by a table, without torch. Where none of them fits in every entry, those of other
plugins, and the one that a file states for itself, are built without their memory and ranked beside them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from zoo.catalog.architectures import config
from zoo.catalog.state_dict_shapes import Shape, names, shapes_of
from zoo.checkpoints.open import open_checkpoint
from zoo_core.boundary import checked
from zoo_core.documents.json_reader import parse_json
from zoo_core.errors import ZooError

if TYPE_CHECKING:
    from zoo_core.checkpoints import TensorSource
    from zoo_core.config import ModelConfig

__all__ = ["CONFIG_KEY", "COUNTED", "Candidate", "identify", "leaves", "likeness", "rank"]

CONFIG_KEY = "zoo.config"
"""Under which a safetensors file that `zoo.save` wrote carries its architecture."""

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
        towers: what the file holds: `("image", "text")`, or one of them, to which all of the above is confined.
    """

    names: tuple[str, ...]
    fit: float
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: dict[str, tuple[Shape, Shape]]
    untold: dict[str, tuple[Any, ...]]
    towers: tuple[str, ...] = TOWERS


@checked
def identify(
    path: str | Path,
    *,
    limit: int = 5,
    weights: str | None = None,
    architectures: Sequence[str | Path | Mapping[str, Any] | ModelConfig] = (),
) -> list[Candidate]:
    """Return the architectures that a checkpoint's names and shapes fit best, the best first; none where none is near.

    Args:
        path: a file or folder of any container and layout that an installed plugin knows.
        limit: how many candidates to return.
        weights: which state dict of a training checkpoint; see `zoo.build`.
        architectures: others to rank beside those that are installed, such as YAML files and saved folders of yours.

    Raises:
        CheckpointError: it holds no weights that can be read.
        ConfigError: one of `architectures` is wrong.
    """
    from zoo.building.source import config_of

    source = open_checkpoint(path, weights=weights)
    shapes = {key: info.shape for key, info in source.entries.items()}
    others = {_name(one, index): _shaped(config_of(one)) for index, one in enumerate(architectures)}
    stated = _stated(source)
    ranked = rank(shapes, limit=limit, others=others)
    if not ranked or ranked[0].fit < 1:
        more = dict(_of_strangers())
        if stated is not None:
            with suppress(Exception):  # whatever a file states need not be buildable
                more[str(path)] = _shaped(stated)
        ranked = rank(shapes, limit=limit, others=more | others) if more else ranked
    return ranked if stated is None else [_narrowed(one, stated) if one.fit == 1 else one for one in ranked]


def rank(shapes: Mapping[str, Shape], *, limit: int, others: Mapping[str, Shaped] | None = None) -> list[Candidate]:
    """Return the architectures of zoo, and `others`, that names and shapes fit best, the best first."""
    others = others or {}
    expected = {
        name: _canonical(others[name][1] if name in others else shapes_of(name)) for name in (*others, *names())
    }
    ranked: list[tuple[float, list[str], Mapping[str, Shape], Mapping[str, Shape], tuple[str, ...]]] = []
    for towers, found in _readings(_canonical(shapes)):
        groups: dict[frozenset[tuple[str, Shape]], list[str]] = {}
        for name, entries in expected.items():
            groups.setdefault(frozenset(_of_towers(entries, towers).items()), []).append(name)
        ranked += [(_fit(found, dict(one)), alike, dict(one), found, towers) for one, alike in groups.items()]
    ranked.sort(key=lambda one: (-one[0], one[1]))
    return [
        _candidate(found, entries, alike, fit, towers, others)
        for fit, alike, entries, found, towers in ranked[:limit]
        if fit >= LEAST
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


def _shaped(architecture: ModelConfig) -> Shaped:
    """Return an architecture with name and shape of each entry, built without its memory."""
    from zoo.building.build import skeleton

    entries = skeleton(architecture).state_dict()
    return architecture, {key: tuple(value.shape) for key, value in entries.items()}


def _name(source: object, index: int) -> str:
    return str(source) if isinstance(source, str | Path) else f"architectures[{index}]"


def _of_strangers() -> Iterator[tuple[str, Shaped]]:
    """Yield the architectures of other plugins, by the names that `zoo.build` takes; broken ones are left out."""
    from zoo.building.describe import list_architectures

    for one in list_architectures():
        if one.problem is None and one.distribution != OWN:
            with suppress(Exception):  # a stranger's tower may raise anything; whoever builds it is told
                yield one.name, _shaped(config(one.name))


def _stated(source: TensorSource) -> ModelConfig | None:
    """Return the architecture that a file of `zoo.save` states, if its parts are installed here."""
    text = source.metadata.get(CONFIG_KEY)
    if text is None:
        return None
    with suppress(ZooError):
        data = parse_json(text, str(source.path)).data
        return None if "extends" in data else config(data)  # a saved one is whole, and reads no other file
    return None


def _narrowed(candidate: Candidate, stated: ModelConfig) -> Candidate:
    """Return a candidate without the names whose configs differ from what a file states."""
    told = dict(leaves(stated.data()))
    agreeing = [
        name
        for index, name in enumerate(candidate.names)
        if all(values[index] == told.get(key) for key, values in candidate.untold.items())
    ]
    return replace(candidate, names=(agreeing[0],), untold={}) if len(agreeing) == 1 else candidate


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
    found: Mapping[str, Shape],
    expected: Mapping[str, Shape],
    alike: list[str],
    fit: float,
    towers: tuple[str, ...],
    others: Mapping[str, Shaped],
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
        untold=_untold(
            [others[name][0] if name in others else config(f"{OWN}/{name}") for name in alike], _SECTIONS[towers]
        ),
        towers=towers,
    )


def _untold(alike: Sequence[ModelConfig], sections: tuple[str, ...]) -> dict[str, tuple[Any, ...]]:
    """Return the keys in which the configs of architectures of equal shapes differ, with the value of each."""
    flat = [dict(leaves(one.data())) for one in alike]
    keys = [
        key
        for key in dict.fromkeys(key for one in flat for key in one)
        if key != "description" and key.startswith(sections)
    ]
    values = {key: tuple(one.get(key) for one in flat) for key in keys}
    return {key: value for key, value in values.items() if any(other != value[0] for other in value)}
