"""Captions of plain text, and of almost plain text, as strategies of hypothesis."""

from __future__ import annotations

import string

from hypothesis import strategies as st

from support.tokenizers.pipelines import SPECIAL

PIECES = [
    *("cat", "photo", "It's", "don't", "'s", "'ll", "o'clock", "the_quick", "A", "of", "dogs'", "123", "12,345.60"),
    *("!", "?!", "--", "(c)", "#1", "<", "<s", "a<s>b", *SPECIAL, "[CLS]", "x" * 101, "ab" * 60, "~`^", "&amp;"),
]
ODD_PIECES = ["", "é", "猫", "\n", "\t", "a\u00a0b", "\u2581", "cat\u2581dog", "e\u0301", "\x00", "\u0301", "ﬁ"]
WORDS = st.sampled_from(PIECES) | st.text(string.printable[:95].replace(" ", ""), min_size=1, max_size=9)
PLAIN = st.lists(WORDS, min_size=1, max_size=9).map(" ".join)
SOUP = st.text(string.printable + "é▁ ", max_size=30)
MIXED = st.lists(WORDS | st.sampled_from(ODD_PIECES), max_size=9).map(" ".join)
