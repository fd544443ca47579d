"""References: a value `${key}` of a document stands for the value of another key.

They mean what they mean to OmegaConf, as far as they are allowed: `${vision.width}` counts from the top, `${.width}`
from the section that holds the reference, each further dot from one section above, and `[2]` or `.2` is an item of a
list. What you would not guess: every reference is followed once, however many lead to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

from zoo_core.documents import Document, KeyPath
from zoo_core.errors import Problem, describe, dotted

__all__ = ["resolve"]

_NAME = r"[^\W\d][\w-]*"
_KEY = re.compile(
    rf"\$\{{[ \t]*(?P<up>\.*)(?P<first>{_NAME}|(?<=\.)\d+)"
    rf"(?P<rest>(?:\.(?:{_NAME}|\d+)|\[(?:{_NAME}|\d+)\])*)[ \t]*\}}"
)
_STEP = re.compile(rf"{_NAME}|\d+")
_MISSING = "???"


def resolve(document: Document) -> Iterator[Problem]:
    """Replace every `${key}` by the value that it names, in place; yield a problem for each that names none."""
    references: dict[KeyPath, str] = {}
    for path, text in _texts(document.data, ()):
        if text == _MISSING:
            yield document.mark(path).problem("a value is missing ('???')", dotted(path))
        elif _KEY.fullmatch(text) is None:
            rule = f"only a whole value '${{key}}' may refer to another, found {describe(text)}"
            yield document.mark(path).problem(rule, dotted(path))
        elif isinstance(_container(document.data, path), tuple):
            yield document.mark(path).problem("a tuple cannot hold a reference; write a list", dotted(path))
        else:
            references[path] = text
    values: dict[KeyPath, Any] = {}
    for path in references:
        try:
            _follow(document, path, references, values)
        except ValueError as error:
            yield document.mark(path).problem(f"{references[path]} {error}", dotted(path))
    for path, value in values.items():
        document.references[path] = references[path]
        _container(document.data, path)[path[-1]] = value


def _follow(document: Document, path: KeyPath, references: dict[KeyPath, str], values: dict[KeyPath, Any]) -> None:
    """Note the value at the end of a chain of references for each of them; a `ValueError` says why there is none."""
    chain: dict[KeyPath, None] = {}
    while path in references and path not in values:
        if path in chain:
            raise ValueError("leads back to itself")
        chain[path] = None
        path = _target(document.data, path, references[path])
    value = values[path] if path in values else _container(document.data, path)[path[-1]]
    if isinstance(value, dict | list | tuple):
        raise ValueError("names a section; only single values can be referred to")
    values.update(dict.fromkeys(chain, value))


def _target(data: dict[str, Any], path: KeyPath, text: str) -> KeyPath:
    """Return the place that the reference at `path` names; a `ValueError` says that there is none."""
    parts = _KEY.fullmatch(text)
    assert parts is not None
    levels = len(parts["up"])
    if levels > len(path):
        raise ValueError("leads nowhere: it counts from above the top")
    target = path[:-levels] if levels else ()
    node: Any = _container(data, (*target, ""))
    for step in (parts["first"], *_STEP.findall(parts["rest"])):
        if isinstance(node, dict) and step in node:
            target, node = (*target, step), cast("dict[str, Any]", node)[step]
        elif isinstance(node, list | tuple) and step.isdecimal() and int(step) < len(cast("Sequence[Any]", node)):
            target, node = (*target, int(step)), cast("Sequence[Any]", node)[int(step)]
        else:
            raise ValueError(f"leads nowhere: there is no key '{dotted((*target, step))}'")
    return target


def _container(data: dict[str, Any], path: KeyPath) -> Any:
    """Return the mapping or list that holds the value at `path`."""
    node: Any = data
    for key in path[:-1]:
        node = node[key]
    return node


def _texts(node: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Yield every string that is a reference, looks like one, or stands for a missing value."""
    if isinstance(node, dict):
        for key, value in cast("dict[str, Any]", node).items():
            yield from _texts(value, (*path, key))
    elif isinstance(node, list | tuple):
        for index, value in enumerate(cast("Sequence[Any]", node)):
            yield from _texts(value, (*path, index))
    elif isinstance(node, str) and ("${" in node or node == _MISSING):
        yield path, node
