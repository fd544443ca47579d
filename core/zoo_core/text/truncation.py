"""What becomes of captions that are longer than a row, and how it is told: with counts, and once a call.

What you would not guess: whoever encodes in portions has many calls, and tells of all of them at once (`report_once`).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, get_args

from zoo_core.errors import InputError, TruncatedTextWarning, describe, warn_caller

__all__ = ["Overflow", "checked_overflow", "report", "report_once"]

Overflow = Literal["warn", "truncate", "error"]
OVERFLOW: tuple[Overflow, ...] = get_args(Overflow)


@dataclass
class _Told:
    """What is to be told of several calls."""

    captions: int = 0
    longer: int = 0
    length: int = 0
    first: str = ""


_gathered: ContextVar[_Told | None] = ContextVar("captions that were cut", default=None)


def checked_overflow(overflow: str) -> Overflow:
    """Return a policy that there is; refuse any other with an `InputError`."""
    for known in OVERFLOW:
        if isinstance(overflow, str) and overflow == known:  # pyright: ignore[reportUnnecessaryIsInstance]
            return known
    raise InputError(f"overflow must be {', '.join(map(repr, OVERFLOW))}, found {describe(overflow)}")


def report(longer: Sequence[int], captions: Sequence[str], length: int, overflow: Overflow) -> None:
    """Tell what became of captions, as `overflow` says.

    Args:
        longer: numbers of those that have more than `length` tokens; maybe none.
        captions: all of them.
        length: tokens of a row.
        overflow: `truncate` says nothing, `warn` warns, `error` refuses.

    Raises:
        InputError: there are such captions, and `overflow` is `error`.
    """
    if overflow == "error" and longer:
        said = _said(len(longer), len(captions), length)
        shown = f"texts[{longer[0]}] is the first of them: {captions[longer[0]]!r:.60}"
        raise InputError(f"{said}; {shown}. Shorten them, or cut them with overflow='truncate'")
    if overflow != "warn":
        return
    gathered = _gathered.get()
    if gathered is not None:
        gathered.captions += len(captions)
        if longer:
            gathered.first = gathered.first or captions[longer[0]]
            gathered.longer += len(longer)
            gathered.length = length
    elif longer:
        shown = f"texts[{longer[0]}] is the first of them: {captions[longer[0]]!r:.60}"
        warn_caller(f"{_said(len(longer), len(captions), length)} and were cut; {shown}", TruncatedTextWarning)


@contextmanager
def report_once() -> Generator[None]:
    """Gather what the calls in the block would warn of; it is told once, when the outermost block ends well."""
    if _gathered.get() is not None:
        yield
        return
    told = _Told()
    token = _gathered.set(told)
    try:
        yield
    finally:
        _gathered.reset(token)
    if told.longer:
        cut = f"{_said(told.longer, told.captions, told.length)} and were cut"
        warn_caller(f"{cut}; the first of them: {told.first!r:.60}", TruncatedTextWarning)


def _said(longer: int, captions: int, length: int) -> str:
    return f"{longer} of {captions} captions have more than {length} tokens"
