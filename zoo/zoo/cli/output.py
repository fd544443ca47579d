"""What commands print: tables and JSON on standard output, everything else on standard error.

Tables are plain columns. Into a pipe or a file they come as wide as they are, for nothing may be cut there. On a
terminal their cells are folded between words, never within one: a name is one that can be copied.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["count", "fields", "progress", "report", "report_warning", "show", "show_json", "table"]

UNBOUNDED = 10_000
GAP = 2
"""Blanks between columns."""


def report(message: str) -> None:
    """Print what is wrong on standard error."""
    print(f"error: {message}", file=sys.stderr)  # a progress bar lets this through, and not the echo of typer


def report_warning(warning: Warning | str) -> None:
    """Print what deserves attention on standard error."""
    print(f"warning: {warning}", file=sys.stderr)


def show_json(data: Any) -> None:
    """Print JSON on standard output."""
    typer.echo(json.dumps(data, indent=2, default=_plain))


def show(*parts: RenderableType) -> None:
    """Print tables and lines on standard output; what is text already is printed as it is."""
    from rich.console import Console
    from rich.table import Table

    is_terminal = sys.stdout.isatty()
    console = Console(width=None if is_terminal or "COLUMNS" in os.environ else UNBOUNDED)
    for part in parts:
        if isinstance(part, Table) and part.columns:
            console.width = max(console.width, _fit(part, console.width))
    with console.capture() as capture:
        for part in parts:
            console.print(part, markup=False, highlight=False, emoji=False, soft_wrap=isinstance(part, str))
    # not through rich, which would end the program on its own where a pipe is closed
    typer.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Sequence[str] = ()) -> RenderableType:
    """Return a table with a header.

    Args:
        columns: headings.
        rows: cells, shown as text; None is an empty cell.
        right: headings of the columns that hold numbers.
    """
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    for column in columns:
        numbers = column in right
        made.add_column(column, justify="right" if numbers else "left", no_wrap=numbers, overflow="fold")
    for row in rows:
        made.add_row(*(_cell(value) for value in row))
    return made


def fields(pairs: Iterable[tuple[str, Any]]) -> RenderableType:
    """Return names and values, one pair a line; a value that is None is left out."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, show_header=False, padding=(0, GAP, 0, 0))
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs:
        if value is not None:
            made.add_row(_cell(name), _cell(value))
    return made


def count(number: int | None) -> str:
    """Return a number of parameters as people read it: `149.6M`; `?` where it is not known."""
    if number is None:
        return "?"
    for unit, size in (("G", 1_000_000_000), ("M", 1_000_000), ("K", 1_000)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)


class Advance(Protocol):
    """Moves a progress bar."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` steps are done."""
        ...


@contextmanager
def progress(title: str) -> Generator[Advance]:
    """Show a progress bar on standard error while the block runs, if somebody is there to see it."""
    if not sys.stderr.isatty():
        yield lambda done, total, note="": None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
    bar = Progress(TextColumn(title), *columns, console=Console(stderr=True), transient=True)
    with bar:
        task = bar.add_task(title, total=None, note="")
        yield lambda done, total, note="": bar.update(task, completed=done, total=total, note=note)


def _fit(made: Table, width: int) -> int:
    """Give the columns of a table widths at which no word is folded, and return the width that it then has."""
    from rich.cells import cell_len

    cells = [[str(column.header), *map(str, column.cells)] for column in made.columns]
    widths = [max(map(cell_len, column)) for column in cells]
    words = [max((cell_len(word) for cell in column for word in cell.split()), default=0) for column in cells]
    over = sum(widths) + GAP * (len(widths) - 1) - width
    for at in sorted(range(len(widths)), key=lambda at: words[at] - widths[at]):
        if not made.columns[at].no_wrap:
            spared = min(max(over, 0), widths[at] - words[at])
            widths[at], over = widths[at] - spared, over - spared
        made.columns[at].width = widths[at]
    return width + max(over, 0)


def _cell(value: Any) -> RenderableType:
    from rich.text import Text

    return Text("" if value is None else str(value))


def _plain(value: object) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
