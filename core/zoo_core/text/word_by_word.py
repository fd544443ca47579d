"""Ids of captions word by word, from a cache of words.

Nobody looks whether a caption is plain text. Only plain words are remembered, and a caption that holds another one is
encoded as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain

from zoo_core.text.word_cache import WordCache

__all__ = ["WordByWord", "word_by_word"]

_CHARACTERS = "".join(map(chr, range(0x21, 0x7F)))
PROBES = (
    "cat",
    "A photo of a cat, asleep on the warm stones.",
    "it's John's dogs' 2nd #1 photo (c) 2021 -- I'LL say they don't, and we've 12,345.60 of them @home_page!?",
    " ".join(_CHARACTERS),
    " ".join(map("".join, zip(_CHARACTERS, _CHARACTERS[::-1], "a1.'" * 24, strict=False))),
    " ".join(_CHARACTERS[start : start + 9] for start in range(0, len(_CHARACTERS), 5)),
)
"""Captions on which word by word is held to the whole before it is relied on."""


class WordByWord:
    """Encodes captions in which each word has ids of its own. Threads may share one.

    Args:
        encode: returns the ids of a text.
        space: what stands before a word, not the first, that is encoded alone: a space or nothing.
        refused: ids of which a word may have none.
    """

    def __init__(self, encode: Callable[[str], list[int]], space: str, refused: frozenset[int] = frozenset()) -> None:
        self._others = _Words(encode, space, refused)
        self._first = _Words(encode, "", refused) if space else self._others

    def __call__(self, caption: str) -> list[int] | None:
        """Return the ids of a caption, or None where it has to be encoded as a whole."""
        if not caption.isascii():
            return None
        first, *others = caption.split(" ")
        try:
            return [*self._first[first], *chain.from_iterable(map(self._others.__getitem__, others))]
        except _NotPlainError:
            return None


def word_by_word(
    encode: Callable[[str], list[int]], space: str, refused: frozenset[int] = frozenset()
) -> WordByWord | None:
    """Return what encodes captions word by word, or None where it proves wrong; arguments are those of `WordByWord`."""
    by_words = WordByWord(encode, space, refused)
    return by_words if all(by_words(probe) in (None, encode(probe)) for probe in PROBES) else None


class _NotPlainError(Exception):
    """A word has something in it that may have to do with other words."""


class _Words(WordCache):
    """The ids of words of printable ASCII, after `space`."""

    def __init__(self, encode: Callable[[str], list[int]], space: str, refused: frozenset[int]) -> None:
        super().__init__()
        self._encode, self._space, self._refused = encode, space, refused

    def encode(self, word: str) -> Iterable[int]:
        """Return the ids of a word.

        Raises:
            _NotPlainError: it is empty, holds a character that is no plain one, or has an id that is refused.
        """
        if not word or not word.isprintable():
            raise _NotPlainError
        ids = self._encode(self._space + word)
        if not self._refused.isdisjoint(ids):
            raise _NotPlainError
        return ids
