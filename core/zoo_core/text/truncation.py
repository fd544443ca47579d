"""Reports of captions that are longer than a row.

Each call of a tokenizer reports once, with counts. Code that encodes in portions makes many calls, and reports on all
of them at once (`report_once`).
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
class _Counts:
    """Counts over several calls."""

    captions: int = 0
    longer: int = 0
    length: int = 0
    first: str = ""


_gathered: ContextVar[_Counts | None] = ContextVar("captions that were cut", default=None)


def checked_overflow(overflow: str) -> Overflow:
    """Return a known policy; refuse any other with an `InputError`."""
    for policy in OVERFLOW:
        if isinstance(overflow, str) and overflow == policy:  # pyright: ignore[reportUnnecessaryIsInstance]
            return policy
    raise InputError(f"overflow must be {', '.join(map(repr, OVERFLOW))}, found {describe(overflow)}")


def report(longer: Sequence[int], captions: Sequence[str], length: int, overflow: Overflow) -> None:
    """Warn of captions that are cut, or refuse them, as `overflow` says.

    Args:
        longer: numbers of those that have more than `length` tokens; maybe none.
        captions: all of them.
        length: tokens of a row.
        overflow: `truncate` says nothing, `warn` warns, `error` refuses.

    Raises:
        InputError: there are such captions, and `overflow` is `error`.
    """
    if overflow == "error" and longer:
        counts = _counts(len(longer), len(captions), length)
        shown = f"texts[{longer[0]}] is the first of them: {captions[longer[0]]!r:.60}"
        raise InputError(f"{counts}; {shown}. Shorten them, or cut them with overflow='truncate'")
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
        warn_caller(f"{_counts(len(longer), len(captions), length)} and were cut; {shown}", TruncatedTextWarning)


@contextmanager
def report_once() -> Generator[None]:
    """Gather the warnings of the calls in the block into one, at the end of the outermost block."""
    if _gathered.get() is not None:
        yield
        return
    counts = _Counts()
    token = _gathered.set(counts)
    try:
        yield
    finally:
        _gathered.reset(token)
    if counts.longer:
        cut = f"{_counts(counts.longer, counts.captions, counts.length)} and were cut"
        warn_caller(f"{cut}; the first of them: {counts.first!r:.60}", TruncatedTextWarning)


def _counts(longer: int, captions: int, length: int) -> str:
    return f"{longer} of {captions} captions have more than {length} tokens"
