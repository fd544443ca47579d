"""Tables of commands: widths, folding and what a terminal may not see."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.cli.tables import fields, table, visible


def test_columns_are_as_wide_as_their_cells_and_numbers_stand_right() -> None:
    rows = table(("NAME", "SIZE"), [("a", 1), ("long name", None), ("b", 1000)], right=("SIZE",))
    assert list(rows.lines(80)) == ["NAME       SIZE", "a             1", "long name", "b          1000"]


def test_cells_are_folded_between_words_and_no_word_is_cut() -> None:
    rows = table(("A", "B"), [("one two three", "unbreakable")])
    assert list(rows.lines(20)) == ["A        B", "one two  unbreakable", "three"]
    assert list(rows.lines(1)) == ["A      B", "one    unbreakable", "two", "three"]
    assert rows.width(1) == 18
    assert rows.width(80) == 80


def test_lines_of_a_cell_stay_apart() -> None:
    assert list(fields([("a", "one\ntwo"), ("b", None), ("c", 3)]).lines(80)) == ["a  one", "   two", "c  3"]


def test_wide_and_combining_characters_take_the_cells_of_a_terminal() -> None:
    rows = table(("A", "B"), [("漢字", 1), ("e\u0301", 2)])
    assert list(rows.lines(80)) == ["A     B", "漢字  1", "e\u0301     2"]


def test_a_terminal_sees_a_bold_header() -> None:
    assert list(table(("A",), [("b",)]).lines(80, bold=True)) == ["\x1b[1mA\x1b[0m", "b"]
    assert list(fields([("a", 1)]).lines(80, bold=True)) == ["a  1"]


def test_a_table_without_rows_is_its_header() -> None:
    assert list(table(("A", "B"), []).lines(80)) == ["A  B"]
    assert list(fields([]).lines(80)) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    {
        "\x1b[2Jgone": "[2Jgone",
        "a\rb\x07\x08\x9b": "ab",
        "a\tb\nc": "a       b\nc",
        "caf\u00e9 \udcff \u2028": "caf\u00e9 \udcff \u2028",
    }.items(),
)
def test_control_characters_are_left_out(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1), st.integers(1, 40))
def test_every_word_of_a_table_is_shown_whole(rows: list[tuple[str, str]], width: int) -> None:
    words = sorted(" ".join(visible(cell) for row in rows for cell in row).split())
    lines = list(table(("A", "B"), rows).lines(width))
    assert sorted(" ".join(lines).split()) == sorted(["A", "B", *words])
