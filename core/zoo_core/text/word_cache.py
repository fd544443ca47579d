"""Cache of the token ids of words.

Captions repeat their words, and a look-up costs far less than encoding. There is no lock: a word that two threads meet
at once, or that was forgotten, is encoded again, which gives the same ids.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

__all__ = ["CACHED_WORDS", "LONG_WORD", "WordCache"]

CACHED_WORDS = 1 << 18
"""Words remembered at most; with one more, all are forgotten. Web text would fill memory otherwise."""
LONG_WORD = 64
"""Longer words, in characters, are rarely met twice and not remembered."""


class WordCache(dict[str, "Iterable[int]"], ABC):
    """Words and their ids: a bounded mapping that fills itself when asked. Threads may share one.

    Ids of a long word may be read only once.
    """

    @abstractmethod
    def encode(self, word: str) -> Iterable[int]:
        """Return the ids of a word that is not remembered."""

    def __missing__(self, word: str) -> Iterable[int]:
        ids = self.encode(word)
        if len(word) > LONG_WORD:
            return ids
        if len(self) >= CACHED_WORDS:
            self.clear()
        self[word] = ids = tuple(ids)
        return ids
