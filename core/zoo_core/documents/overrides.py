"""Overrides of an architecture: `"key.path=value"`, each read as YAML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import cast

from zoo_core.documents import Bounds, Document, Mark
from zoo_core.documents.yaml_reader import read_value
from zoo_core.errors import ConfigError, describe

__all__ = ["read_overrides"]

EXPECTED = "overrides is a sequence of 'key=value' strings"


def read_overrides(overrides: Sequence[str]) -> Iterator[Document]:
    """Yield a document for each override.

    Raises:
        ConfigError: they are no sequence of such strings, or too many.
    """
    if isinstance(overrides, str):
        raise ConfigError(f"{EXPECTED}; write overrides=[{describe(overrides)}]")
    if isinstance(overrides, Mapping):
        items = islice(cast("Mapping[object, object]", overrides).items(), 9)
        written = [f"{key}={value if isinstance(value, str) else describe(value)}" for key, value in items]
        raise ConfigError(f"{EXPECTED}; write overrides={describe(written, 200)}")
    if isinstance(overrides, bytes) or not isinstance(cast("object", overrides), Iterable):
        raise ConfigError(f"{EXPECTED}, found {describe(cast('object', overrides))}")
    try:
        listed = list(islice(overrides, Bounds.values + 1))
    except TypeError:  # a tensor of no dimensions says that it can be iterated over
        raise ConfigError(f"{EXPECTED}, found {describe(overrides)}") from None
    if len(listed) > Bounds.values:
        raise ConfigError(f"there are more than {Bounds.values:,} overrides")
    for override in listed:
        if not isinstance(override, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"an override is a string such as 'vision.layers=2', found {describe(override)}")
        yield _read_override(override)


def _read_override(override: str) -> Document:
    """Return `"vision.layers=2"` as a document of one value, which has the rules and bounds of a file's."""
    mark = Mark(f"override {describe(override)}")
    key, equals, text = override.partition("=")
    if not equals or not re.fullmatch(r"\w+(\.\w+)*", key):
        raise ConfigError(mark.problem("expected key.path=value, such as vision.layers=2"))
    *sections, last = key.split(".")
    if len(sections) >= Bounds.depth:
        raise ConfigError(mark.problem(f"is nested deeper than {Bounds.depth} levels"))
    try:
        data = {last: read_value(text)}
    except ConfigError as error:
        raise ConfigError(
            [mark.problem(problem.message, ".".join(filter(None, (key, problem.key)))) for problem in error.problems]
        ) from None
    for section in reversed(sections):
        data = {section: data}
    return Document(data, {(*sections, last): mark})
