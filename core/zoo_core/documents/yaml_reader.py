"""Reader of YAML files, with bounds and the line of every key.

Values are those of YAML 1.2's core schema: `no` and `on` are strings, `1e-3` is a number, a date is a string. Aliases,
merge keys, tags and duplicate keys are refused: `extends` and `${key}` do what they are for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import yaml

from zoo_core.documents import Bounds, Document, KeyPath, Mark, read_text
from zoo_core.errors import ConfigError, Problem, dotted

__all__ = ["read_document", "read_value"]

BOUNDS = Bounds()

_YAML: Any = yaml  # its stubs leave functions and loaders untyped
_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null")}


# PyYAML's safe loader, libyaml's where it is there, with no scalars but those that are added below.
_Loader: Any = type("_Loader", (getattr(yaml, "CSafeLoader", yaml.SafeLoader),), {"yaml_implicit_resolvers": {}})
_FLOAT = (
    r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})$"), list(_first))


def read_document(path: Path) -> Document:
    """Read one YAML file.

    Raises:
        ConfigError: it is no regular file, too large, no text, no YAML, no mapping, or uses what is refused; all
            refused places are listed at once.
    """
    source = str(path)
    marks: dict[KeyPath, Mark] = {(): Mark(source, 1, 1)}
    data = _parse(read_text(path, BOUNDS.bytes), source, marks)
    if data is None:
        raise ConfigError(Problem("the file is empty; expected a mapping of keys", source=source))
    if not isinstance(data, dict):
        raise ConfigError(marks[()].problem("expected a mapping of keys at the top level"))
    return Document(cast("dict[str, Any]", data), marks)


def read_value(text: str) -> Any:
    """Return the value that `text` has in a YAML file, within the same bounds.

    Raises:
        ConfigError: it is no YAML, too large, or uses what is refused.
    """
    if len(text) > BOUNDS.bytes:
        raise ConfigError(f"has {len(text):,} characters; at most {BOUNDS.bytes:,} are read")
    return _parse(text, "", {})


def _parse(text: str, source: str, marks: dict[KeyPath, Mark]) -> Any:
    """Return the value of a YAML text, and record the mark of every key."""
    _check_events(text, source)
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        problems = [] if node is None else list(_walk(node, (), source, marks))
        if problems:
            raise ConfigError(problems)
        return None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError) as error:
        raise _not_yaml(error, source) from None
    finally:
        loader.dispose()


def _check_events(text: str, source: str) -> None:
    """Look at the events of the parser, which does not recurse, before anything that does."""
    depth = nodes = 0
    try:
        for event in _YAML.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            nodes += isinstance(event, yaml.NodeEvent)
            if isinstance(event, yaml.AliasEvent):
                raise ConfigError(
                    _mark(event, source).problem(f"aliases (*{event.anchor}) are not supported; write ${{key}} instead")
                )
            if depth > BOUNDS.depth:
                raise ConfigError(_mark(event, source).problem(f"is nested deeper than {BOUNDS.depth} levels"))
            if nodes > BOUNDS.values:
                raise ConfigError(_mark(event, source).problem(f"has more than {BOUNDS.values:,} values"))
    except (yaml.YAMLError, ValueError) as error:  # also text that is none: a lone surrogate
        raise _not_yaml(error, source) from None


def _not_yaml(error: Exception, source: str) -> ConfigError:
    """Return PyYAML's error, or a number that Python cannot hold, as a problem with a place."""
    if isinstance(error, ConfigError):
        return error
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
        if "nesting depth" in (error.problem or ""):  # newer parsers have a bound of their own, above ours
            return ConfigError(Mark(source, line, column).problem(f"is nested deeper than {BOUNDS.depth} levels"))
        return ConfigError(Mark(source, line, column).problem(f"is not YAML: {error.problem or error.context}"))
    return ConfigError(Problem(f"is not YAML: {' '.join(str(error).split())}", source=source))


def _walk(node: yaml.Node, path: KeyPath, source: str, marks: dict[KeyPath, Mark]) -> Iterator[Problem]:
    """Record the mark of every key below `node`; yield what is refused."""
    if node.tag not in _PLAIN_TAGS:
        yield _mark(node, source).problem(f"the tag {node.tag!r} is not supported; write a plain value", dotted(path))
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(cast("list[yaml.Node]", node.value)):
            marks[*path, index] = _mark(child, source)
            yield from _walk(child, (*path, index), source, marks)
    elif isinstance(node, yaml.MappingNode):
        for key, child in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
            yield from _walk_entry(key, child, path, source, marks)


def _walk_entry(
    key: yaml.Node, child: yaml.Node, path: KeyPath, source: str, marks: dict[KeyPath, Mark]
) -> Iterator[Problem]:
    mark = _mark(key, source)
    if key.tag == "tag:yaml.org,2002:merge":
        yield mark.problem("merge keys (<<) are not supported; use 'extends'", dotted(path))
        return
    if key.tag != "tag:yaml.org,2002:str":
        yield mark.problem(
            f"keys are strings; quote {key.value!r}" if isinstance(key.value, str) else "keys are strings"
        )
        return
    inner = (*path, cast("str", key.value))
    if inner in marks:
        yield mark.problem(f"duplicate key (first on line {marks[inner].line})", dotted(inner))
        return
    marks[inner] = mark
    yield from _walk(child, inner, source, marks)


def _mark(node: yaml.Node | yaml.Event, source: str) -> Mark:
    start = node.start_mark
    return Mark(source, start.line + 1, start.column + 1) if start is not None else Mark(source)
