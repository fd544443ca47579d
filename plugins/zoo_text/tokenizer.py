"""CLIP's byte-pair tokenizer (Radford et al. 2021), id for id that of openai/CLIP and open_clip.

What you would not guess: symbols are ids from the start. Ids 0-255 are the bytes (in CLIP's order), 256-511 the same
bytes at the end of a word, then come the merges in order of rank, then `<start_of_text>` and `<end_of_text>`. So
the id of a merged symbol is its rank as well, the pair to merge next is the one with the smallest id, and a
vocabulary is cut by dropping its last merges.

Time goes to three things, and each is avoided where it can be. Mending text (ftfy, `html.unescape`) is skipped where
it provably changes nothing, splitting ASCII takes the standard library's `re`, and each word is merged only once.
"""

from __future__ import annotations

import functools
import html
import re
import string
import struct
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from itertools import chain, islice, pairwise, repeat
from typing import TYPE_CHECKING, Any, cast

from zoo_core.errors import InputError
from zoo_core.tokenizer import Tokenizer
from zoo_text.tokenizer_config import Cleaning, ClipBpeConfig

if TYPE_CHECKING:
    import torch

__all__ = ["ClipBpeTokenizer"]

START, END = "<start_of_text>", "<end_of_text>"

CACHED_WORDS = 1 << 18
"""Words that a vocabulary remembers; it forgets them all when full. Web text would fill memory otherwise."""
CACHED_LENGTH = 64
"""Longer words are rarely met twice: they are never remembered, and are merged with a heap."""

_VISIBLE_BYTES = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTES = bytes([*_VISIBLE_BYTES, *sorted({*range(256)} - {*_VISIBLE_BYTES})])
"""The byte that each of the ids 0-255 stands for."""
_IDS = tuple(_BYTES.index(byte) for byte in range(256))
_END_OF_WORD = 256
_FIRST_MERGE = 512
_UNMERGED = 1 << 16


class Vocabulary(dict[str, tuple[int, ...]]):
    """The ids of words: a mapping that encodes a word when it is first asked for. Safe to share between threads.

    Made by `vocabulary`. A copy is the same object, and a pickle is nothing but the size.
    """

    def __init__(self, vocab_size: int) -> None:
        from importlib.resources import files

        super().__init__()
        self.sot_id, self.eot_id = vocab_size - 2, vocab_size - 1
        packed = files("zoo_text").joinpath("bpe_merges.u16").read_bytes()
        pairs = struct.iter_unpack("<HH", packed[: 4 * (self.sot_id - _FIRST_MERGE)])
        self._merges = cast("dict[tuple[int, int], int]", dict(zip(pairs, range(_FIRST_MERGE, self.sot_id))))

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = self._encode(word)
        if len(word) <= CACHED_LENGTH:
            if len(self) >= CACHED_WORDS:
                self.clear()
            self[word] = ids
        return ids

    def __reduce__(self) -> tuple[Callable[[int], Vocabulary], tuple[int]]:
        return vocabulary, (self.eot_id + 1,)

    @functools.cached_property
    def spellings(self) -> list[bytes]:
        """The bytes of each id but the special ones; the end of a word is a space."""
        single = [_BYTES[i : i + 1] for i in range(256)]
        spelled = single + [byte + b" " for byte in single]
        for left, right in self._merges:
            spelled.append(spelled[left] + spelled[right])
        return spelled

    def _encode(self, word: str) -> tuple[int, ...]:
        if word == END:
            return (self.eot_id,)
        if word == START:
            return (self.sot_id,)
        symbols = [_IDS[byte] for byte in word.encode()]
        symbols[-1] += _END_OF_WORD
        return tuple((self._merged if len(symbols) <= CACHED_LENGTH else self._merged_long)(symbols))

    def _merged(self, symbols: list[int]) -> list[int]:
        """Merge the pair of lowest rank, the leftmost of equals, until none is left.

        CLIP merges all equals in one pass. That is the same, since a pair that holds a merged symbol ranks after it.
        """
        rank = self._merges.get
        while len(symbols) > 1:
            ranks = list(map(rank, pairwise(symbols), repeat(_UNMERGED)))
            best = min(ranks)
            if best == _UNMERGED:
                break
            at = ranks.index(best)
            symbols[at : at + 2] = [best]
        return symbols

    def _merged_long(self, symbols: list[int]) -> list[int]:
        """Do what `_merged` does in O(n log n): a heap of candidate pairs over a linked list of symbols."""
        rank, n = self._merges.get, len(symbols)
        before, after = list(range(-1, n - 1)), list(range(1, n + 1))
        ranks = map(rank, pairwise(symbols), repeat(_UNMERGED))
        heap = [best * n + at for at, best in enumerate(ranks) if best != _UNMERGED]
        heapify(heap)
        while heap:
            best, at = divmod(heappop(heap), n)
            following = after[at]
            if following == n or rank((symbols[at], symbols[following])) != best:
                continue  # a neighbour was merged since this pair was put on the heap
            symbols[at], symbols[following] = best, -1
            previous, following = before[at], after[following]
            after[at] = following
            if following < n:
                before[following] = at
                if (joined := rank((best, symbols[following]))) is not None:
                    heappush(heap, joined * n + at)
            if previous >= 0 and (joined := rank((symbols[previous], best))) is not None:
                heappush(heap, joined * n + previous)
        return [symbol for symbol in symbols if symbol >= 0]


@functools.cache
def vocabulary(vocab_size: int) -> Vocabulary:
    """Return the vocabulary of this size; everyone in the process shares it."""
    return Vocabulary(vocab_size)


class ClipBpeTokenizer(Tokenizer):
    """Captions to ids, id for id as open_clip's `SimpleTokenizer`. Safe to share between threads, cheap to pickle."""

    pad_id = 0

    def __init__(self, config: ClipBpeConfig, *, context_length: int) -> None:
        self.config = config
        self.context_length = context_length
        self.vocab_size = config.vocab_size
        self.sot_id, self.eot_id = self.vocab_size - 2, self.vocab_size - 1
        self._words = vocabulary(self.vocab_size)

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text` alone: no special tokens around it, no truncation."""
        return list(self._ids(text))

    def fill(self, texts: Sequence[str], rows: Any) -> None:
        """Write the ids of `texts` into the int64 array `rows` `[N, L]`, which already holds padding.

        Words that no longer fit a row are not encoded.
        """
        end = rows.shape[1] - 1
        rows[:, 0] = self.sot_id
        for row, text in zip(rows, texts, strict=True):
            ids = list(islice(self._ids(text), end - 1))
            row[1 : len(ids) + 1] = ids
            row[len(ids) + 1] = self.eot_id

    def decode(self, ids: Sequence[int] | torch.Tensor) -> str:
        """Return the cleaned text that `ids` `[L]` stand for, with one space after each word but the last.

        Reads up to the first end of text. Bytes that are no UTF-8, as of a word that was cut, become U+FFFD.

        Raises:
            InputError: an id is no whole number or none of this vocabulary; its position is named.
        """
        spellings, spelled = self._words.spellings, list[bytes]()
        values = cast("Sequence[object]", ids.tolist() if hasattr(ids, "tolist") else ids)
        for position, value in enumerate(values):
            if not isinstance(value, int) or not 0 <= value < self.vocab_size:
                raise InputError(f"ids[{position}]: expected an id from 0 to {self.eot_id}, found {value!r:.40}")
            if value == self.eot_id:
                break
            if value != self.sot_id:
                spelled.append(spellings[value])
        return b"".join(spelled).decode(errors="replace").removesuffix(" ")

    def _ids(self, text: str) -> chain[int]:
        cleaned = clean(text, self.config.cleaning)
        words = _splitter(cleaned.isascii(), self.config.special_tokens_in_text)(cleaned)
        return chain.from_iterable(map(self._words.__getitem__, words))


# Printable ASCII, tab, line feed, form feed and carriage return, where no `&` can begin an entity. ftfy and
# html.unescape leave such text as it is, but for line ends, and those only separate words.
_is_sound = re.compile(r"[\t\n\f\r -%'-~]*(?:& [\t\n\f\r -%'-~]*)*").fullmatch

_without_punctuation = {ord("_"): " ", **{ord(mark): None for mark in string.punctuation if mark != "_"}}


def clean(text: str, cleaning: Cleaning) -> str:
    """Return `text` mended (mojibake, entities, control characters, width, ligatures, quotes) and normalised."""
    if not _is_sound(text):
        text = _mended(text)
    if cleaning == "whitespace":
        return text
    return (text.translate(_without_punctuation) if cleaning == "canonicalize" else text).lower()


def _mended(text: str) -> str:
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))  # twice, for text that was escaped twice
    # str.split knows separators (U+001C to U+001F) that the splitter does not.
    return " ".join(text.split())


@functools.cache
def _splitter(is_ascii: bool, special_tokens_in_text: bool) -> Callable[[str], list[str]]:
    """Return what finds the words of a cleaned text: runs of letters, single digits, endings, runs of other marks."""
    special = f"{START}|{END}|" if special_tokens_in_text else ""
    endings = f"(?i:{special}'s|'t|'re|'ve|'m|'ll|'d)"
    if is_ascii:
        return re.compile(rf"[A-Za-z]+|{endings}|[0-9]|[^\sA-Za-z0-9]+").findall
    import regex

    # IGNORECASE is not for the endings alone: under it, U+0345 is neither letter nor mark, and CLIP drops it.
    marks = regex.compile(rf"{endings}|\p{{L}}+|\p{{N}}|[^\s\p{{L}}\p{{N}}]+", regex.IGNORECASE)
    return marks.findall
