"""Merging of architectures: one document laid over another, section by section."""

from __future__ import annotations

from typing import Any, cast

from zoo_core.documents import Document, KeyPath, Mark

__all__ = ["merge"]


def merge(base: Document, over: Document) -> Document:
    """Return `over` laid on `base`: sections are merged key by key, anything else is replaced.

    A section that names another component than the one below it starts empty.
    """
    marks = dict(base.marks)
    data = _merge(base.data, over.data, (), marks)
    return Document(data, marks | over.marks)


def _merge(base: dict[str, Any], over: dict[str, Any], path: KeyPath, marks: dict[KeyPath, Mark]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = base.get(key)
        if isinstance(value, dict) and isinstance(below, dict) and not _names_another(below, value):
            merged[key] = _merge(cast("Any", below), cast("Any", value), (*path, key), marks)
        else:
            if isinstance(below, dict | list):
                for stale in [mark for mark in marks if mark[: len(path) + 1] == (*path, key)]:
                    del marks[stale]
            merged[key] = value
    return merged


def _names_another(base: Any, over: Any) -> bool:
    """Tell whether a section picks another component than the one below it did."""
    return any(
        key in over and key in base and str(over[key]).rpartition("/")[2] != str(base[key]).rpartition("/")[2]
        for key in ("tower", "type")
    )
