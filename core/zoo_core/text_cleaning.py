"""How captions are cleaned before any tokenizer sees them: mended, then normalised, as the field does it.

What you would not guess: mending costs far more than most tokenizers, so text that it would leave alone is told
apart first, with one regular expression.
"""

from __future__ import annotations

import html
import re
import string
from typing import Literal

__all__ = ["Cleaning", "CleaningOrNone", "clean", "clean_and_collapse"]

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


def clean(text: str, cleaning: Cleaning) -> str:
    """Return `text` mended (mojibake, entities, control characters, quotes) and normalised, save spaces."""
    if not _is_sound(text):
        text = _mended(text)
    if cleaning == "whitespace":
        return text
    return (text.translate(_WITHOUT_PUNCTUATION) if cleaning == "canonicalize" else text).lower()


def clean_and_collapse(text: str, cleaning: CleaningOrNone) -> str:
    """Return `text` cleaned, with single spaces between words and none around them, unless it is left as it is.

    With `none`, two surrogates that belong together become their character, and one that stands alone, which no
    encoding of Unicode can hold, becomes U+FFFD, as they do where text is mended.
    """
    if cleaning != "none":
        return " ".join(clean(text, cleaning).split())
    if not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _mended(text: str) -> str:
    import ftfy

    return html.unescape(html.unescape(ftfy.fix_text(text)))  # twice, for text that was escaped twice
