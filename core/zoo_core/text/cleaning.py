"""Cleaning of captions before any tokenizer sees them: mended, then normalised.

Mending costs far more than most tokenizers, so one regular expression first sorts out text that it would not change.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable
from itertools import chain
from typing import Literal

__all__ = ["Cleaning", "CleaningOrNone", "clean_and_collapse", "cleaned_words"]

Cleaning = Literal["lower", "whitespace", "canonicalize"]
"""`lower` is lower case, as CLIP; `whitespace` keeps case; `canonicalize` is lower case without ASCII punctuation,
as SigLIP."""

CleaningOrNone = Literal[Cleaning, "none"]
"""`none` leaves text as it is, but for surrogates that stand alone."""

_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a pair of UTF-16; damaged files are full of them."""

# Printable ASCII, tab, line feed, form feed and carriage return, where no `&` can begin an entity. ftfy and
# html.unescape leave such text as it is, but for line ends, and those only separate words.
_is_sound = re.compile(r"[\t\n\f\r -%'-~]*(?:& [\t\n\f\r -%'-~]*)*").fullmatch

_WITHOUT_PUNCTUATION = {ord("_"): " ", **{ord(mark): None for mark in string.punctuation if mark != "_"}}


def cleaned_words(text: str, cleaning: Cleaning) -> Iterable[str]:
    """Return the words of `text`, mended (mojibake, entities, control characters, quotes) and normalised.

    Lines are mended one by one, when their words are asked for.
    """
    if _is_sound(text):
        return _normalised(text, cleaning).split()
    from zoo_core.text.mending import mended_lines  # imports ftfy

    return chain.from_iterable(_normalised(line, cleaning).split() for line in mended_lines(text))


def clean_and_collapse(text: str, cleaning: CleaningOrNone) -> str:
    """Return `text` cleaned, with single spaces between words and none around them, unless it is left as it is.

    With `none`, two surrogates that belong together become their character, and one that stands alone, which no
    encoding of Unicode can hold, becomes U+FFFD, as they do where text is mended.
    """
    if cleaning != "none":
        return " ".join(cleaned_words(text, cleaning))
    if not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _normalised(text: str, cleaning: Cleaning) -> str:
    if cleaning == "whitespace":
        return text
    return (text.translate(_WITHOUT_PUNCTUATION) if cleaning == "canonicalize" else text).lower()
