"""Which architecture a file of weights belongs to, told from the names and shapes in it; no tensor is read.

Prefixes of wrappers (`module.`, `_orig_mod.`) and the layout of the text tower, at the top or below `text.`, are no
difference: every model loads both layouts. What names and shapes cannot tell, such as the activation, is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open

from zoo.catalog import config
from zoo.folders import WEIGHTS
from zoo.parameter_shapes import Shape, names, shapes_of
from zoo_core.errors import CheckpointError

__all__ = ["Candidate", "identify"]

_WRAPPERS = ("module.", "_orig_mod.")
_COUNTED = "position_ids"
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
    """

    names: tuple[str, ...]
    fit: float
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: dict[str, tuple[Shape, Shape]]
    untold: dict[str, tuple[Any, ...]]


def identify(path: str | Path, *, limit: int = 5) -> list[Candidate]:
    """Return the architectures of zoo that a file's names and shapes fit best, the best first.

    Args:
        path: a safetensors file, or a folder that `zoo.save` wrote.
        limit: how many candidates to return.

    Raises:
        CheckpointError: it is no safetensors file, or is damaged.
    """
    found = _canonical(_read(Path(path)))
    groups: dict[tuple[tuple[str, Shape], ...], list[str]] = {}
    for name in names():
        groups.setdefault(tuple(sorted(_canonical(shapes_of(name)).items())), []).append(name)
    ranked = sorted(
        ((_fit(found, dict(entries)), alike, dict(entries)) for entries, alike in groups.items()),
        key=lambda one: (-one[0], one[1]),
    )
    return [_candidate(found, entries, alike, fit) for fit, alike, entries in ranked[:limit] if fit]


def _read(path: Path) -> dict[str, Shape]:
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(f"{file} is no file; expected safetensors weights")
    try:
        with safe_open(file, framework="numpy") as opened:  # pyright: ignore[reportUnknownVariableType]
            keys = cast("list[str]", list(opened.keys()))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
            return {key: tuple(cast("list[int]", opened.get_slice(key).get_shape())) for key in keys}  # pyright: ignore[reportUnknownMemberType]
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} cannot be read as safetensors: {error}") from None


def _canonical(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return entries by names that do not depend on wrappers and layout; one value has no shape."""
    return {
        _plain_name(key): () if shape == (1,) and key.rpartition(".")[2].startswith("logit_") else shape
        for key, shape in shapes.items()
        if not key.endswith(_COUNTED)
    }


def _plain_name(key: str) -> str:
    for wrapper in _WRAPPERS:
        key = key.replace(wrapper, "") if key.startswith(wrapper) or f".{wrapper}" in key else key
    return key.removeprefix("text.")


def _fit(found: Mapping[str, Shape], expected: Mapping[str, Shape]) -> float:
    equal = len(found.items() & expected.items())
    return equal / len(found.keys() | expected.keys())


def _candidate(found: Mapping[str, Shape], expected: Mapping[str, Shape], alike: list[str], fit: float) -> Candidate:
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
        untold=_untold(alike),
    )


def _untold(alike: list[str]) -> dict[str, tuple[Any, ...]]:
    """Return the keys in which the configs of architectures of equal shapes differ, with the value of each."""
    flat = [dict(_leaves(config(name).data())) for name in alike]
    keys = [key for key in dict.fromkeys(key for one in flat for key in one) if key != "description"]
    values = {key: tuple(one.get(key) for one in flat) for key in keys}
    return {key: value for key, value in values.items() if any(other != value[0] for other in value)}


def _leaves(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for key, value in data.items():
        inner = isinstance(value, Mapping)
        leaves += _leaves(cast("Mapping[str, Any]", value), f"{prefix}{key}.") if inner else [(prefix + key, value)]
    return leaves
