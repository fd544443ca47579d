"""Names and shapes of what each architecture's state dict holds, as a table: nothing is built to know them.

The table `parameter_shapes.txt` is written by `docs/generate_catalog.py`; tests hold it to the models and to open_clip.
A run of numbers stands as `{first-last}`, and an architecture whose entries are all those of another names that one:

    [vit-b32]
    logit_scale []
    visual.transformer.resblocks.{0-11}.ln_1.weight [768]
    [vit-b32-quickgelu] vit-b32
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files

from zoo_core.errors import UnknownNameError, did_you_mean

__all__ = ["Shape", "names", "shapes_of", "written"]

Shape = tuple[int, ...]

_RUN = re.compile(r"\{(\d+)-(\d+)\}")
_TABLE = "parameter_shapes.txt"


def names() -> list[str]:
    """Return the architectures of the table, in alphabetical order."""
    return sorted(_sections())


def shapes_of(name: str) -> dict[str, Shape]:
    """Return name and shape of each entry of an architecture's state dict, in the layout of its checkpoints.

    Args:
        name: an architecture of zoo's own, by its first name.

    Raises:
        UnknownNameError: the table does not hold it.
    """
    sections = _sections()
    if name not in sections:
        raise UnknownNameError(f"no shapes are recorded for '{name}'{did_you_mean(name, sections)}")
    other, lines = sections[name]
    if other:
        return shapes_of(other)
    found: dict[str, Shape] = {}
    for line in lines:
        folded, _, shape = line.partition(" ")
        found |= dict.fromkeys(_unfolded(folded), _shape(shape))
    return found


def written(table: Mapping[str, Mapping[str, Shape]]) -> str:
    """Return the text of a table of architectures, each with its entries."""
    lines: list[str] = []
    seen: dict[tuple[tuple[str, Shape], ...], str] = {}
    for name, entries in sorted(table.items()):
        first = seen.setdefault(tuple(sorted(entries.items())), name)
        if first != name:
            lines.append(f"[{name}] {first}")
            continue
        lines.append(f"[{name}]")
        lines += [f"{key} {list(shape)}" for key, shape in _folded(entries).items()]
    return "\n".join(lines) + "\n"


@cache
def _sections() -> dict[str, tuple[str, list[str]]]:
    """Return for each architecture the other one whose entries it has, or its own lines."""
    sections: dict[str, tuple[str, list[str]]] = {}
    lines: list[str] = []
    for line in files("zoo").joinpath(_TABLE).read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            name, _, other = line[1:].partition("] ")
            lines = []
            sections[name.removesuffix("]")] = (other, lines)
        else:
            lines.append(line)
    return sections


@cache
def _shape(text: str) -> Shape:
    return tuple(json.loads(text))


@cache
def _unfolded(key: str) -> tuple[str, ...]:
    parts = _RUN.split(key)  # text, first, last, text, first, last, ..., text
    runs = [range(int(first), int(last) + 1) for first, last in zip(parts[1::3], parts[2::3], strict=True)]
    return tuple(
        "".join(text + str(number) for text, number in itertools.zip_longest(parts[::3], numbers, fillvalue=""))
        for numbers in itertools.product(*runs)
    )


def _folded(entries: Mapping[str, Shape]) -> dict[str, Shape]:
    """Fold runs of numbers at each place between the dots, from the last place to the first."""
    found = dict(entries)
    for place in reversed(range(max((key.count(".") for key in found), default=0) + 1)):
        found = _folded_at(place, found)
    return found


def _folded_at(place: int, entries: Mapping[str, Shape]) -> dict[str, Shape]:
    groups: dict[tuple[str, str, Shape], list[int]] = {}
    for key, shape in entries.items():
        before, number, after = _split(key, place)
        groups.setdefault((before, after, shape) if number is not None else (key, "", shape), []).append(
            -1 if number is None else number
        )
    return {before + run + after: shape for (before, after, shape), numbers in groups.items() for run in _runs(numbers)}


def _split(key: str, place: int) -> tuple[str, int | None, str]:
    """Return what stands before a place, its number (None where it holds none) and what stands behind."""
    parts = key.split(".")
    if place >= len(parts) or not parts[place].isdecimal():
        return key, None, ""
    before, after = parts[:place], parts[place + 1 :]
    return "".join(f"{part}." for part in before), int(parts[place]), "".join(f".{part}" for part in after)


def _runs(numbers: Iterable[int]) -> Iterator[str]:
    """Yield `"3"` or `"{3-7}"` for each run of numbers, and an empty text for what is none."""
    for _, run in itertools.groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        first, last = members[0], members[-1]
        yield "" if first < 0 else str(first) if first == last else f"{{{first}-{last}}}"
