"""Reader of mappings, within the bounds of a file."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import islice
from typing import Any, cast

from zoo_core.documents.document import Bounds, Document, KeyPath, Mark
from zoo_core.errors import ConfigError, describe, dotted, reason

__all__ = ["read_mapping"]


def read_mapping(source: Mapping[str, Any]) -> Document:
    """Copy a mapping, so that nothing that is done to the document reaches the caller.

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
