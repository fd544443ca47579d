"""Documents: files that are read as text, within their bounds, and the place of each key."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from zoo_core.documents import (
    ENCODER_CONFIG,
    TOKENIZER_CONFIG,
    Bounds,
    Document,
    Mark,
    expect_file,
    read_text,
)
from zoo_core.documents.json_reader import parse_json, read_json
from zoo_core.errors import ConfigError

BOUNDS = {
    "architecture": (Bounds(), 262_144, 32, 10_000),
    "config of an encoder": (ENCODER_CONFIG, 4_194_304, 32, 100_000),
    "config of a tokenizer": (TOKENIZER_CONFIG, 16_777_216, 32, 1_000_000),
}
"""Kind of document -> its bounds, and the bytes, levels and values that `docs/errors.md` allows it."""


@pytest.mark.parametrize("kind", BOUNDS)
def test_a_document_may_have_as_many_bytes_as_is_written_down(kind: str, tmp_path: Path) -> None:
    bounds, most, depth, values = BOUNDS[kind]
    assert (bounds.depth, bounds.values) == (depth, values)
    path = tmp_path / "config.json"
    for size in (most, most + 1):
        path.write_text(json.dumps({"a": "x" * (size - 9)}))
        assert path.stat().st_size == size
        if size == most:
            assert len(read_json(path, bounds).data["a"]) == size - 9
        else:
            with pytest.raises(ConfigError, match=f"has {size:,} bytes; at most {most:,} are read"):
                read_json(path, bounds)


def test_a_document_may_have_as_many_levels_and_values_as_is_written_down() -> None:
    parse_json('{"a": ' * 32 + "1" + "}" * 32, "x.json")
    assert len(parse_json('{"a": [' + "1," * 9_999 + "1]}", "x.json").data["a"]) == 10_000
    for wide in ('{"a": [' + "1," * 10_000 + "1]}", "{" + ",".join(f'"k{key}": 1' for key in range(10_001)) + "}"):
        with pytest.raises(ConfigError, match="has more than 10,000 values"):
            parse_json(wide, "x.json")


def test_siblings_are_no_deeper_than_one_another() -> None:
    parse_json(json.dumps({f"k{number}": [{}] for number in range(100)}), "x.json")


def test_text_is_read_without_its_byte_order_mark_and_anything_else_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: \xc3\xa9\r\n")
    assert read_text(path) == "a: é\r\n"
    path.write_bytes(b"a: \xe9")
    with pytest.raises(ConfigError, match="x.yaml: is not UTF-8 text: byte 3 is 0xe9"):
        read_text(path)
    path.write_bytes(b"a: \0")
    with pytest.raises(ConfigError, match="x.yaml: is a binary file, expected text"):
        read_text(path)
    with pytest.raises(ConfigError, match="gone.yaml: cannot be read: No such file or directory"):
        read_text(tmp_path / "gone.yaml")


def test_only_a_regular_file_or_nothing_may_stand_in_a_place(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    for name in ("file", "gone"):
        expect_file(tmp_path / name)
    for path in (tmp_path / "fifo", tmp_path, "/dev/null"):
        with pytest.raises(ConfigError, match=f"{path}: is not a regular file; remove it"):
            expect_file(path)
    with pytest.raises(NotADirectoryError):
        expect_file(tmp_path / "file" / "below")


def test_a_place_that_has_no_mark_has_that_of_the_nearest_key_above_it() -> None:
    marks = {(): Mark("x.yaml", 1, 1), ("a",): Mark("x.yaml", 2, 1), ("a", "b"): Mark("x.yaml", 3, 3)}
    document = Document({"a": {"b": [{}]}}, marks)
    assert document.mark(("a", "b", 0, "c")) == marks["a", "b"]
    assert document.mark(("a", "c")) == marks["a",]
    assert document.mark(("c", "b")) == marks[()]
    assert Document({}).mark(("a",)) == Mark("")


def test_a_place_without_a_line_is_told_by_its_file_alone() -> None:
    assert str(Mark("x.yaml").problem("wrong", "a")) == "x.yaml: a: wrong"
    assert Mark("x.yaml") == Mark("x.yaml", 0, 0)
    assert str(Mark("x.yaml", 2, 5).problem("wrong", "a")) == "x.yaml:2:5: a: wrong"
