"""References: a value `${key}` of a document stands for the value of another key.

What you would not guess: OmegaConf, which looks them up, is imported by the documents that have some alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

from zoo_core.documents import Document, KeyPath
from zoo_core.errors import Problem, dotted

__all__ = ["resolve"]

_INTERPOLATION = re.compile(r"\$\{[^${}:]+\}")


def resolve(document: Document) -> Iterator[Problem]:
    """Replace every `${key}` by the value that it names, in place; yield a problem for each that names none."""
    pending = list(_references(document.data, ()))
    malformed = [(path, text) for path, text in pending if not _INTERPOLATION.fullmatch(text)]
    for path, text in malformed:
        missing = text == "???"
        rule = f"only a whole value '${{key}}' may refer to another, found {text!r}"
        yield document.mark(path).problem("a value is missing ('???')" if missing else rule, dotted(path))
    if malformed or not pending:
        return
    from omegaconf import OmegaConf

    tree = OmegaConf.create(document.data)
    for path, text in pending:
        try:
            value = _referred(tree, path)
        except ValueError as error:
            yield document.mark(path).problem(f"{text} {error}", dotted(path))
            continue
        document.references[path] = text
        node: Any = document.data
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value


def _referred(tree: Any, path: KeyPath) -> Any:
    """Return the value that the reference at `path` leads to; a `ValueError` says why it leads to none."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        value = OmegaConf.select(tree, dotted(path), throw_on_resolution_failure=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ValueError(f"leads nowhere: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise ValueError("leads back to itself") from None
    if OmegaConf.is_config(value):
        raise ValueError("names a section; only single values can be referred to")
    return value


def _references(node: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(node, dict):
        for key, value in cast("dict[str, Any]", node).items():
            yield from _references(value, (*path, key))
    elif isinstance(node, list | tuple):
        for index, value in enumerate(cast("Sequence[Any]", node)):
            yield from _references(value, (*path, index))
    elif isinstance(node, str) and ("${" in node or node == "???"):
        yield path, node
