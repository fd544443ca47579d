"""JSON documents: what is read, the line of each key, and everything that is refused."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo_core.documents import Bounds, Document, KeyPath
from zoo_core.documents.json_reader import parse_json, read_json
from zoo_core.errors import ConfigError, Problem, describe, reason

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner), max_leaves=9)


def paths(value: Any, path: KeyPath = ()) -> set[KeyPath]:
    """The place of every key of every object in `value`."""
    if isinstance(value, dict):
        return {(*path, key) for key in value}.union(*(paths(one, (*path, key)) for key, one in value.items()))
    if isinstance(value, list):
        return set().union(*(paths(one, (*path, index)) for index, one in enumerate(value)))
    return set()


@given(st.dictionaries(st.text(max_size=5), values), st.sampled_from([None, 2]), st.booleans())
def test_what_json_writes_is_read_back_with_the_place_of_every_key(
    data: dict[str, Any], indent: int | None, is_ascii: bool
) -> None:
    document = parse_json(json.dumps(data, indent=indent, ensure_ascii=is_ascii), "x.json")
    assert document.data == data
    assert set(document.marks) == {()} | paths(data)


def test_a_key_is_found_on_its_line() -> None:
    document = parse_json('{"a": [1, {"b": "x, \\"y\\": {"}],\n  "c": {}}', "x.json")
    assert str(document.mark(("a", 1, "b")).problem("wrong", "a[1].b")) == "x.json:1:12: a[1].b: wrong"
    assert str(document.mark(("c",)).problem("wrong", "c")) == "x.json:2:3: c: wrong"


def test_characters_that_yaml_refuses_are_read(tmp_path: Path) -> None:
    data = {"pad_token": "🐶", "del": "\x7f", "c1": "\x9b"}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    assert read_json(path).data == data


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.json:1:1: the file is empty"),
        ("[1]", "x.json:1:1: expected a mapping of keys at the top level"),
        ('{"a": 1,\n "a": 2}', "x.json:2:2: a: duplicate key (first on line 1)"),
        ('{"a": {"b": 1, "\\u0062": 2}}', "x.json:1:16: a.b: duplicate key (first on line 1)"),
        ("{'a': 1}", "x.json:1:2: is not JSON: Expecting property name enclosed in double quotes"),
        ('{"a": 1', "x.json:1:8: is not JSON: Expecting ',' delimiter"),
        ('{"a": ' + "9" * 5000 + "}", "x.json: is not JSON: Exceeds the limit"),
        ('{"a": ' * 33 + "1" + "}" * 33, "x.json:1:193: is nested deeper than 32 levels"),
        ('{"a": ' + "[" * 1_000_000, "x.json:1:38: is nested deeper than 32 levels"),
        ('{"a": [' + "1," * 10_000 + "1]}", "has more than 10,000 values"),
        ('{"\\x": 1}', "x.json:1:3: is not JSON: Invalid \\escape"),
        ("]}{[\\", "x.json:1:1: is not JSON"),
    ],
    ids=lambda value: value[:24],
)
def test_bad_text_is_one_error_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_json(text, "x.json")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 200


@given(st.text(alphabet='{}[]",:\\0u e\n'))
def test_any_text_is_a_document_or_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_json(text, "x.json"), Document)


def test_files_that_are_no_text_are_refused_unread(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "long").write_bytes(b" " * 101)
    (tmp_path / "bytes").write_bytes(b"\xff")
    for name, message in (("fifo", "is not a regular file"), ("long", "has 101 bytes"), ("bytes", "byte 0 is 0xff")):
        with pytest.raises(ConfigError, match=message):
            read_json(tmp_path / name, Bounds(bytes=100))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_json(tmp_path / "a\0b")


def test_problems_of_keys_are_located_in_file_order_below_the_section_that_they_are_of() -> None:
    document = parse_json('{"images": {\n"size": {"height": 1},\n"mean": 2}}', "x.json")
    wrong = ConfigError([Problem("is wrong", "mean"), Problem("is odd", "size.height"), Problem("is lacking", "std")])
    located = document.locate(wrong, ("images",))
    places = [(problem.key, problem.source, problem.line, problem.column) for problem in located.problems]
    assert places == [("std", "x.json", 1, 2), ("size.height", "x.json", 2, 10), ("mean", "x.json", 3, 1)]


def test_values_and_errors_are_told_in_one_short_line() -> None:
    class HostileError(Exception):
        def __str__(self) -> str:
            raise ValueError

        __repr__ = __str__

    assert describe({"a": 1}) == "a mapping"
    assert describe("a\nb\udc00") == r"'a\nb\udc00'"
    assert describe("x" * 10**6) == "'" + "x" * 56 + "..."
    assert describe(HostileError()) == "a HostileError"
    assert reason(HostileError()) == "HostileError"
    assert reason(ValueError("a\n  b")) == "ValueError: a b"
    assert reason(ConfigError("ours")) == "ours"
