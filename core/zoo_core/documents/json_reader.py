"""Reader of JSON files, with bounds and the line of every key.

Brackets and values are counted by a scan that does not recurse, before a parser that does sees the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from zoo_core.documents import Bounds, Document, KeyPath, Mark, read_text
from zoo_core.errors import ConfigError, Problem, dotted

__all__ = ["parse_json", "read_json"]

_TOKEN = re.compile(r""""(?:[^"\\]++|\\.)*+"|[{}\[\],:]|\n""", re.DOTALL)


def read_json(path: Path, bounds: Bounds = Bounds()) -> Document:  # noqa: B008 - frozen
    """Read a JSON file that holds an object.

    Raises:
        ConfigError: it is no regular file, is no UTF-8 or no JSON, holds something else than an object, exceeds a
            bound, or names a key twice.
    """
    return parse_json(read_text(path, bounds.bytes), str(path), bounds)


def parse_json(text: str, source: str, bounds: Bounds = Bounds()) -> Document:  # noqa: B008 - frozen
    """Parse the text of a JSON object as `read_json` does; errors call it `source`."""
    marks: dict[KeyPath, Mark] = {(): Mark(source, 1, 1)}
    problems = list(_scan(text, source, bounds, marks))
    try:
        data: Any = json.loads(text)
    except json.JSONDecodeError as error:
        what = "the file is empty" if not text.strip() else f"is not JSON: {error.msg}"
        raise ConfigError(Mark(source, error.lineno, error.colno).problem(what)) from None
    except ValueError as error:  # a number of thousands of digits
        raise ConfigError(Problem(f"is not JSON: {error}", source=source)) from None
    if not isinstance(data, dict):
        raise ConfigError(marks[()].problem("expected a mapping of keys at the top level"))
    if problems:
        raise ConfigError(problems)
    return Document(cast("dict[str, Any]", data), marks)


@dataclass
class _Level:
    """An object or array that is open: its place, and the key or index that comes next."""

    path: KeyPath
    next: str | int | None


def _scan(text: str, source: str, bounds: Bounds, marks: dict[KeyPath, Mark]) -> Iterator[Problem]:
    """Record the mark of every key; yield each key that stands twice. Text that is no JSON is left to the parser.

    Raises:
        ConfigError: a bound is exceeded.
    """
    levels: list[_Level] = []
    line, line_start, values = 1, 0, 1
    for match in _TOKEN.finditer(text):
        token, mark = match[0], Mark(source, line, match.start() - line_start + 1)
        top = levels[-1] if levels else None
        if token == "\n":
            line, line_start = line + 1, match.end()
        elif token in ("{", "["):
            path = () if top is None or top.next is None else (*top.path, top.next)
            levels.append(_Level(path, None if token == "{" else 0))
            if len(levels) > bounds.depth:
                raise ConfigError(mark.problem(f"is nested deeper than {bounds.depth} levels"))
        elif token in ("}", "]"):
            if levels:
                levels.pop()
        elif token == ",":
            values += 1
            if values > bounds.values:
                raise ConfigError(mark.problem(f"has more than {bounds.values:,} values"))
            if top is not None:
                top.next = None if isinstance(top.next, str) or top.next is None else top.next + 1
        elif token != ":" and top is not None and top.next is None:
            try:
                key: Any = json.loads(token)
            except ValueError:  # a bad escape, which the parser names
                return
            top.next = key
            path = (*top.path, key)
            if path in marks:
                yield mark.problem(f"duplicate key (first on line {marks[path].line})", dotted(path))
            marks.setdefault(path, mark)
