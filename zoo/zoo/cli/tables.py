"""Plain tables, whose cells are folded between words.

No word is folded, since a name has to be one that can be copied. A table whose words need more is wider than asked.
They are formatted here because rich takes longer to import and to format 155 rows than all else of `zoo list`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any
from unicodedata import category, combining, east_asian_width

__all__ = ["Table", "fields", "table", "visible"]

GAP = 2
"""Blanks between columns."""

BOLD, PLAIN = "\x1b[1m", "\x1b[0m"


@dataclass(frozen=True)
class Table:
    """Rows of cells, each cell its lines of text.

    Attributes:
        rows: the header, where there is one, and the cells below it; all have equally many cells.
        right: numbers of the columns that are aligned to the right.
        rigid: numbers of the columns whose lines are never folded.
        header: whether the first row is one.
    """

    rows: tuple[tuple[tuple[str, ...], ...], ...]
    right: frozenset[int] = frozenset()
    rigid: frozenset[int] = frozenset()
    header: bool = True

    def lines(self, width: int, *, bold: bool = False) -> Iterator[str]:
        """Yield the lines of the table, folded to a width where its words allow that.

        Args:
            width: cells of a terminal.
            bold: print the header in bold.
        """
        widths = self._widths(width)
        for number, row in enumerate(self.rows):
            folded = [
                [part for line in cell for part in ([line] if column in self.rigid else _folded(line, widths[column]))]
                for column, cell in enumerate(row)
            ]
            for parts in zip_longest(*folded, fillvalue=""):
                padded: list[str] = []
                for column, part in enumerate(parts):
                    blanks = " " * (widths[column] - _cells(part))
                    padded.append(f"{blanks}{part}" if column in self.right else f"{part}{blanks}")
                line = (" " * GAP).join(padded).rstrip()
                yield f"{BOLD}{line}{PLAIN}" if bold and self.header and not number else line

    def width(self, width: int) -> int:
        """Return the width that the table has where `width` is asked for."""
        return max(width, sum(self._widths(width)) + self._gaps())

    def _gaps(self) -> int:
        return GAP * (len(self.rows[0]) - 1) if self.rows else 0

    def _widths(self, width: int) -> list[int]:
        """Return the width of each column; the ones with most to spare are folded first."""
        columns = [[line for cell in column for line in cell] for column in zip(*self.rows, strict=True)]
        widths = [max(map(_cells, lines), default=0) for lines in columns]
        words = [max((_cells(word) for line in lines for word in line.split()), default=0) for lines in columns]
        excess = max(sum(widths) + self._gaps() - width, 0)
        for column in sorted(range(len(widths)), key=lambda column: words[column] - widths[column]):
            if column not in self.rigid:
                spared = min(excess, widths[column] - words[column])
                widths[column], excess = widths[column] - spared, excess - spared
        return widths


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Sequence[str] = ()) -> Table:
    """Return a table with a header.

    Args:
        columns: headings.
        rows: cells, shown as text; None is an empty cell.
        right: headings of the columns that hold numbers.
    """
    numbers = frozenset(index for index, column in enumerate(columns) if column in right)
    return Table(tuple(tuple(map(_lines, row)) for row in (columns, *rows)), right=numbers, rigid=numbers)


def fields(pairs: Iterable[tuple[str, Any]]) -> Table:
    """Return names and values, one pair a line; a value that is None is left out."""
    rows = tuple((_lines(name), _lines(value)) for name, value in pairs if value is not None)
    return Table(rows, rigid=frozenset({0}), header=False)


def visible(text: str) -> str:
    """Return text without control characters, which a terminal would obey; line ends stay."""
    if text.isprintable():
        return text
    expanded = text.expandtabs()
    return "".join(character for character in expanded if character == "\n" or category(character) != "Cc")


def _lines(value: Any) -> tuple[str, ...]:
    return tuple(visible("" if value is None else str(value)).split("\n"))


def _folded(line: str, width: int) -> list[str]:
    if _cells(line) <= width:
        return [line]
    folded = [""]
    for word in re.findall(r"\s*\S+\s*", line):
        if folded[-1] and _cells(folded[-1]) + _cells(word.rstrip()) > width:
            folded.append("")
        folded[-1] += word
    return [part.rstrip() for part in folded]


def _cells(text: str) -> int:
    """Return the cells of a terminal that a text takes: two of an East Asian character, none of a combining one."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(character) else 1 + (east_asian_width(character) in "WF") for character in text)
