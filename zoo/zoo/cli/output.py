"""Output and exit status of commands.

Results go to standard output, all else to standard error. Tables have the width of the terminal; in a pipe or a file
nothing is folded.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from zoo.cli.tables import Table, visible
from zoo_core.errors import ZooError

__all__ = ["count", "exit_on_error", "progress", "report", "report_warning", "show", "show_json"]

FAILED = 2
INTERRUPTED = 130
"""128 and the number of the signal, as shells count; the same for the next."""
PIPE_CLOSED = 141

UNBOUNDED = 10_000
"""Cells of a line that is no terminal's."""


def report(message: str) -> None:
    """Print what is wrong on standard error."""
    print(f"error: {message}", file=sys.stderr)  # a progress bar lets this through, and not the echo of typer


def report_warning(warning: Warning | str) -> None:
    """Print what deserves attention on standard error."""
    print(f"warning: {warning}", file=sys.stderr)


@contextmanager
def exit_on_error() -> Generator[None]:
    """Print an expected error as one line and end the program with its status.

    Raises:
        SystemExit: the block raised an expected error, or standard output cannot be written.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        sys.exit(PIPE_CLOSED)
    except (ZooError, OSError) as error:
        if os.environ.get("ZOO_DEBUG"):
            traceback.print_exc()
        report(str(error))
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def show_json(data: Any) -> None:
    """Print JSON on standard output."""
    print(json.dumps(data, indent=2, default=_plain))


def show(*parts: Table | str) -> None:
    """Print tables and lines on standard output; text is printed as it is, without control characters."""
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal or "COLUMNS" in os.environ else UNBOUNDED
    bold = is_terminal and os.environ.get("TERM") != "dumb" and os.name != "nt"
    for part in parts:
        if isinstance(part, str):
            print(visible(part))
        else:
            width = max(width, part.width(width))
            print(*part.lines(width, bold=bold), sep="\n")


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


def _plain(value: object) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
