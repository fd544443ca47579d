"""Names and shapes of the entries of each architecture's state dict.

They are a table, so that no model is built to know them. `docs/generate_catalog.py` writes it, and tests compare it
with our models and with open_clip. The names of an architecture are grouped by shape, which makes the table quick to
read. An architecture whose entries are all those of another names that one:

    {"vit-b32": {"": "logit_scale", "768": "visual.ln_pre.weight visual.ln_pre.bias"}, "vit-b32-quickgelu": "vit-b32"}
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from zoo_core.errors import UnknownNameError, did_you_mean

__all__ = ["TABLE", "Shape", "encode", "names", "shapes_of"]

Shape = tuple[int, ...]

TABLE = Path(__file__).with_name("state_dict_shapes.json.gz")


def names() -> list[str]:
    """Return the architectures of the table, in alphabetical order."""
    return sorted(_table())


def shapes_of(name: str) -> dict[str, Shape]:
    """Return name and shape of each entry of an architecture's state dict, in the format of its checkpoints.

    Args:
        name: an architecture of zoo's own, by its first name.

    Raises:
        UnknownNameError: the table does not hold it.
    """
    table = _table()
    if name not in table:
        raise UnknownNameError(f"no shapes are recorded for '{name}'{did_you_mean(name, table)}")
    groups = table[name]
    if isinstance(groups, str):
        return shapes_of(groups)
    shapes: dict[str, Shape] = {}
    for shape, keys in groups.items():
        shapes |= dict.fromkeys(keys.split(), tuple(map(int, shape.split())))
    return shapes


def encode(table: Mapping[str, Mapping[str, Shape]]) -> bytes:
    """Return the file of a table of architectures, each with its entries."""
    data: dict[str, Any] = {}
    first_with: dict[frozenset[tuple[str, Shape]], str] = {}
    for name, entries in sorted(table.items()):
        first = first_with.setdefault(frozenset(entries.items()), name)
        groups: defaultdict[str, list[str]] = defaultdict(list)
        for key, shape in sorted(entries.items()):
            groups[" ".join(map(str, shape))].append(key)
        data[name] = first if first != name else {shape: " ".join(keys) for shape, keys in groups.items()}
    return gzip.compress(json.dumps(data).encode(), mtime=0)


@cache
def _table() -> dict[str, Any]:
    return json.loads(gzip.decompress(TABLE.read_bytes()))
