"""Mending of captions with ftfy, in linear time.

As the field does it, ftfy runs first, then entities are unescaped twice. By itself ftfy starts over until nothing
changes, and text that is escaped `n` times over changes `n` times. It sorts a long run of combining marks in quadratic
time, and reads a number of many digits in quadratic time, if at all. So rounds are bounded here, and such runs and
numbers are put in order beforehand, which changes no result.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator
from itertools import chain, groupby

import ftfy
import regex
from ftfy import fixes

__all__ = ["ROUNDS", "mended_lines"]

ROUNDS = 16
"""How often ftfy starts over at most; text that was escaped more often stays escaped in part."""

_LINES = re.compile(r"[^\n]*\n|[^\n]+")
_MARKS = regex.compile(r"\p{M}{32,}")
_NUMBER = re.compile(r"(?<=&#)[0-9]{8,}")


def _normalised(text: str) -> str:
    """Return text in NFC, with long runs of combining marks sorted before."""
    return unicodedata.normalize("NFC", _MARKS.sub(lambda run: _sorted_marks(run[0]), text))


def _sorted_marks(run: str) -> str:
    """Return marks in canonical order: those with a combining class are sorted by it, the others stay in place."""
    decomposed = "".join(unicodedata.normalize("NFD", mark) for mark in run)
    groups = groupby(decomposed, lambda mark: unicodedata.combining(mark) > 0)
    return "".join(
        chain.from_iterable(sorted(marks, key=unicodedata.combining) if moves else marks for moves, marks in groups)
    )


_STEPS = (
    fixes.unescape_html,
    ftfy.fix_encoding,
    fixes.fix_c1_controls,
    fixes.fix_latin_ligatures,
    fixes.fix_character_width,
    fixes.uncurl_quotes,
    fixes.fix_line_breaks,
    fixes.fix_surrogates,
    fixes.remove_terminal_escapes,
    fixes.remove_control_chars,
    _normalised,
)
"""What `ftfy.fix_text` does in a round, in its order."""


def mended_lines(text: str) -> Iterator[str]:
    """Yield the lines of a text with their mojibake, entities, control characters and quotes mended.

    From the first line on that has a `<`, ftfy leaves entities to html, which is strict about none.
    """
    in_markup = False
    for match in _LINES.finditer(text):
        line = match[0]
        in_markup = in_markup or "<" in line
        for _ in range(ROUNDS):
            before = line
            for step in _STEPS[in_markup:]:
                line = step(line)
            if line == before:
                break
        yield _unescaped(_unescaped(line))  # twice, for text that was escaped twice


def _unescaped(text: str) -> str:
    # html reads a number alike without zeros, and no longer than one that is too large
    return html.unescape(_NUMBER.sub(lambda digits: digits[0].lstrip("0")[:8] or "0", text))
