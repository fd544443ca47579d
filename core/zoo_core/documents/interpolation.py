"""References: values `${key}` replaced by the value of another key.

OmegaConf looks them up, so they mean what they mean there. It follows a chain anew from each of its links, which is why
a document holds a bounded number of them. Documents without any do not import it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

from zoo_core.documents import Document, KeyPath
from zoo_core.errors import Problem, describe, dotted

__all__ = ["MAX_REFERENCES", "interpolate"]

MAX_REFERENCES = 100
_REFERENCE = re.compile(r"\$\{[^${}:]+\}")
_MISSING = "???"


def interpolate(document: Document) -> Iterator[Problem]:
    """Replace every `${key}` by the value that it names, in place; yield a problem for each that names none."""
    references = dict(_texts(document.data, ()))
    if not references:
        return
    if len(references) > MAX_REFERENCES:
        what = f"holds {len(references):,} references; at most {MAX_REFERENCES} are followed"
        yield document.mark(next(iter(references))).problem(what)
        return
    malformed = {path: _malformed(document.data, path, text) for path, text in references.items()}
    if any(malformed.values()):
        yield from (document.mark(path).problem(what, dotted(path)) for path, what in malformed.items() if what)
        return
    from omegaconf import OmegaConf

    tree = OmegaConf.create(document.data)
    for path, text in references.items():
        try:
            value = _referred(tree, path)
        except ValueError as error:
            yield document.mark(path).problem(f"{text} {error}", dotted(path))
        else:
            document.references[path] = text
            _container(document.data, path)[path[-1]] = value


def _malformed(data: dict[str, Any], path: KeyPath, text: str) -> str:
    """Return what is wrong with a reference by itself; nothing where it can be looked up."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if text == _MISSING:
        return "a value is missing ('???')"
    if isinstance(_container(data, path), tuple):
        return "a tuple cannot hold a reference; write a list"
    try:
        if _REFERENCE.fullmatch(text) and OmegaConf.create([text]):
            return ""
    except OmegaConfBaseException:  # the grammar of what stands between the braces
        pass
    return f"only a whole value '${{key}}' may refer to another, found {describe(text)}"


def _referred(tree: Any, path: KeyPath) -> Any:
    """Return the value that the reference at `path` leads to; a `ValueError` says why it leads to none."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        value = _container(tree, path)[path[-1]]
    except (OmegaConfBaseException, RecursionError) as error:
        first_line = str(error).splitlines()[0] if str(error) else ""
        if isinstance(error, RecursionError) or "Recursi" in first_line:  # OmegaConf detects it, or Python does
            raise ValueError("leads back to itself, or through too many others") from None
        raise ValueError(f"leads nowhere: {first_line}") from None
    if OmegaConf.is_config(value):
        raise ValueError("names a section; only single values can be referred to")
    return value


def _container(data: Any, path: KeyPath) -> Any:
    """Return the mapping or list that holds the value at `path`."""
    for key in path[:-1]:
        data = data[key]
    return data


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
