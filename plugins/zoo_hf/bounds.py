"""Bounds on the length and time of what tokenizers do.

The tokenizers library counts the steps of one match, and panics at ten million. It does not count those of a whole
text: `a+$` takes an hour over a megabyte of `a`. So a tokenizer that brings other regular expressions than the
published ones is timed on long texts of the characters that they name. One whose time grows faster than the text is
refused.
"""

from __future__ import annotations

import re
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from math import prod
from typing import Any

from zoo_core.errors import describe
from zoo_hf.pipeline import steps_of

__all__ = ["LONGEST", "PUBLISHED", "excess", "growth_of"]

_CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
_LINES_AND_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_NOT_LOWER, _NOT_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
PUBLISHED = frozenset(
    {
        # T5, mT5, NLLB, XLM-RoBERTa and other unigram models; BARThez and DeBERTa
        *(r" {2,}", r"\n", r"[\n\r\t]", r"\s{2,}|[\n\r\t]", r"^▁+$", r"\A +| +\z", r"\A▁"),
        # CLIP
        r"\s+",
        rf"{_CONTRACTIONS}|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+",
        rf"<\|startoftext\|>|<\|endoftext\|>|{_CONTRACTIONS}|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+",
        # GPT-2 and RoBERTa, where they spell it out
        rf"{_CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+",
        r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        # Llama 3, Qwen 2 and 3, Qwen 3.5
        *(
            rf"(?i:{_CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|"
            + _LINES_AND_SPACES
            for digits in (r"\p{N}{1,3}", r"\p{N}")
        ),
        rf"(?i:{_CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|"
        + _LINES_AND_SPACES,
        # Mistral
        rf"[^\r\n\p{{L}}\p{{N}}]?{_NOT_LOWER}*{_NOT_UPPER}+|[^\r\n\p{{L}}\p{{N}}]?{_NOT_LOWER}+{_NOT_UPPER}*|\p{{N}}"
        rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_LINES_AND_SPACES}",
    }
)
"""Regular expressions whose time grows with the text alone: timing them takes 0.2 s, and a busy machine may err."""

LONGEST = 1 << 26
"""Characters that a caption may have, times the growth of its tokenizer."""
LARGEST_GROWTH = 1024
LONGEST_WORD = 256
"""The largest `max_input_chars_per_word`: word pieces take time with its cube; published ones have 100."""

_SHORT, _LONG = 1 << 10, 1 << 14
_STEEPEST = 64
"""How many times longer the long text may take than the short one, which is a sixteenth of it; the square is 256."""
_BRIEF = 0.02
"""Seconds of processor time that are too short to be compared."""
_TIMES = 2
"""How often a text has to take too long, since on a busy machine any text may take long once."""
_CHARACTERS = "aA1 !é\n猫"


def growth_of(tokenizer: Any) -> int:
    """Return how many characters a tokenizer of the tokenizers library can make of one, at most, before it encodes it.

    What Unicode itself allows (its normal forms, other cases) is not counted.
    """
    return max(prod(map(_growth, steps_of(part))) for part in (tokenizer.normalizer, tokenizer.decoder))


def excess(tokenizer: Any) -> str | None:
    """Return what a tokenizer of the tokenizers library does too much of, or None."""
    growth = growth_of(tokenizer)
    if growth > LARGEST_GROWTH:
        return f"makes up to {growth:,} characters of one; at most {LARGEST_GROWTH:,} are allowed"
    length = getattr(tokenizer.model, "max_input_chars_per_word", 0)
    if length > LONGEST_WORD:
        return f"has max_input_chars_per_word {length:,}; at most {LONGEST_WORD} are allowed"
    patterns = [*_patterns(tokenizer.normalizer), *_patterns(tokenizer.pre_tokenizer)]
    if PUBLISHED.issuperset(patterns):
        return None

    def prepare(text: str) -> None:
        if tokenizer.normalizer is not None:
            text = tokenizer.normalizer.normalize_str(text)
        if tokenizer.pre_tokenizer is not None:
            tokenizer.pre_tokenizer.pre_tokenize_str(text)

    # characters of every kind, and characters and words that the patterns spell out
    spelled = "".join(patterns)
    samples = [*dict.fromkeys([*_CHARACTERS, *re.findall(r"[^\W_]{2,8}", spelled)[:8], *spelled])][:40]
    for sample in samples:
        if _grows_steeply(prepare, sample):
            return f"has a regular expression whose time grows faster than its text, such as {describe(sample * 4)}..."
    return None


def _growth(step: dict[str, Any]) -> int:
    match step:
        case {"type": "Replace", "content": content, "pattern": pattern}:
            anywhere = "Regex" in pattern or not pattern.get("String")  # it may also match between characters
            return max(1, len(content) + anywhere)
        case {"type": "Prepend", "prepend": prefix}:
            return 1 + len(prefix)
        case {"type": "Precompiled", "precompiled_charsmap": table}:
            content = b64decode(table)
            strings = content[4 + int.from_bytes(content[:4], "little") :].split(b"\0")
            return max(1, *(len(string.decode(errors="replace")) for string in strings))
        case _:
            return 1


def _patterns(part: Any) -> Iterator[str]:
    for step in steps_of(part):
        pattern = step.get("pattern")
        if isinstance(pattern, dict) and "Regex" in pattern:
            yield pattern["Regex"]


def _grows_steeply(run: Callable[[str], None], sample: str) -> bool:
    end = "a" if sample == "!" else "!"

    def seconds(length: int) -> float:
        text = (sample * length)[:length] + end
        start = time.thread_time()
        run(text)
        return time.thread_time() - start

    def is_steep() -> bool:
        long = seconds(_LONG)
        return long > _BRIEF and long > _STEEPEST * seconds(_SHORT)

    return all(is_steep() for _ in range(_TIMES))
