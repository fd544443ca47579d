"""CLIP's byte-pair tokenizer (Radford et al. 2021).

It gives the ids of openai/CLIP and open_clip. Symbols are ids from the start. Ids 0-255 are the bytes (in CLIP's
order), 256-511 the same bytes at the end of a word. Then come the merges in order of rank, `<start_of_text>` and
`<end_of_text>`. The id of a merged symbol is therefore its rank, the pair to merge next is the one with the smallest
id, and a vocabulary is cut by dropping its last merges.

Mending (see `zoo_core.text.cleaning`), splitting and merging take the time, and each is avoided where possible: a
chunk between spaces that was met before needs neither regular expressions nor merging.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heappop, heappush
from itertools import chain, islice, pairwise, repeat
from types import MappingProxyType
from typing import Any

from zoo_core.text.cleaning import cleaned_words
from zoo_core.text.tokenizer import Tokenizer, checked_ids
from zoo_core.text.word_cache import LONG_WORD, WordCache
from zoo_text.bpe.config import ClipBpeConfig
from zoo_text.bpe.transformers_files import token_names, transformers_files

__all__ = ["ClipBpeTokenizer"]

START, END = "<start_of_text>", "<end_of_text>"

_VISIBLE_BYTES = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTES = bytes([*_VISIBLE_BYTES, *sorted({*range(256)} - {*_VISIBLE_BYTES})])
"""The byte that each of the ids 0-255 stands for."""
_IDS = tuple(_BYTES.index(byte) for byte in range(256))
_END_OF_WORD = 256
_FIRST_MERGE = 512
_NONE = 1 << 16
_GONE = -1


class Merges:
    """The merges of a vocabulary of `vocab_size` ids, and the ids that they make of a word."""

    def __init__(self, vocab_size: int) -> None:
        self.sot_id, self.eot_id = vocab_size - 2, vocab_size - 1

    @functools.cached_property
    def merged(self) -> dict[tuple[int, int], int]:
        """The id that each pair becomes; read with the first caption, since many a model is built without one."""
        from importlib.resources import files

        packed = files("zoo_text").joinpath("bpe_merges.u16").read_bytes()
        pairs = struct.iter_unpack("<HH", packed[: 4 * (self.sot_id - _FIRST_MERGE)])
        ids = range(_FIRST_MERGE, self.sot_id)
        return dict[Any, int](zip(pairs, ids, strict=True))

    @functools.cached_property
    def spellings(self) -> list[bytes]:
        """The bytes of each id but the special ones; the end of a word is a space."""
        single = [_BYTES[i : i + 1] for i in range(256)]
        spelled = single + [byte + b" " for byte in single]
        for first, second in self.merged:
            spelled.append(spelled[first] + spelled[second])
        return spelled

    @functools.cached_property
    def encoder(self) -> Mapping[str, int]:
        """The id of each token as vocabularies write it: with `</w>` at the end of a word."""
        names = [*token_names(_BYTES, len(_VISIBLE_BYTES), self.merged), START, END]
        return MappingProxyType({name: token for token, name in enumerate(names)})

    @functools.cached_property
    def decoder(self) -> Mapping[int, str]:
        """How the token of each id is written."""
        return MappingProxyType({token: name for name, token in self.encoder.items()})

    def encode(self, word: str) -> list[int]:
        """Return the ids of one word, not empty, or of one special token."""
        if word in (START, END):
            return [self.sot_id if word == START else self.eot_id]
        symbols = [_IDS[byte] for byte in word.encode()]
        symbols[-1] += _END_OF_WORD
        return self._merge(symbols) if len(symbols) <= LONG_WORD else self._merge_long(symbols)

    def _merge(self, symbols: list[int]) -> list[int]:
        """Merge the pair of lowest rank, the leftmost of equals, until no pair merges.

        CLIP merges all equals in one pass. That is the same: a pair with a merged symbol in it ranks later.
        """
        merged = self.merged.get
        while len(symbols) > 1:
            candidates = list(map(merged, pairwise(symbols), repeat(_NONE)))
            best = min(candidates)
            if best == _NONE:
                break
            at = candidates.index(best)
            symbols[at : at + 2] = [best]
        return symbols

    def _merge_long(self, symbols: list[int]) -> list[int]:
        """Like `_merge`, but in O(n log n): rank by rank, over a linked list of symbols.

        A merge makes only pairs of later ranks, so all positions of a rank are known when its turn comes.
        """
        merged, n = self.merged.get, len(symbols)
        previous, following = [at - 1 for at in range(n)], [at + 1 for at in range(n)]
        positions: dict[int | None, list[int]] = {}
        ranks: list[int] = []

        def note(candidate: int | None, at: int) -> None:
            if candidate in positions:
                positions[candidate].append(at)
            elif candidate is not None:
                positions[candidate] = [at]
                heappush(ranks, candidate)

        for at, pair in enumerate(pairwise(symbols)):
            note(merged(pair), at)
        while ranks:
            best = heappop(ranks)
            for at in sorted(positions.pop(best)):
                second = following[at]
                if second == n or merged((symbols[at], symbols[second])) != best:
                    continue  # a neighbour was merged since
                symbols[at], symbols[second] = best, _GONE
                before, after = previous[at], following[second]
                following[at] = after
                if after < n:
                    previous[after] = at
                    note(merged((best, symbols[after])), at)
                if before >= 0:
                    note(merged((symbols[before], best)), before)
        return [symbol for symbol in symbols if symbol != _GONE]


class Chunks(WordCache):
    """The ids of chunks, the pieces of a text between spaces.

    No word of CLIP's spans a space, so the ids of a text are those of its chunks, and `str.split` does most
    of what the regular expression would do.
    """

    def __init__(self, vocab_size: int, special_tokens_in_text: bool) -> None:
        super().__init__()
        self.merges = merges(vocab_size)
        self._special = special_tokens_in_text

    def encode(self, word: str) -> Iterable[int]:
        """Return the ids of a chunk."""
        words = _splitter(word.isascii(), self._special)(word)
        if words == [word]:  # a word is a chunk too, and the only one that splits into itself
            return self.merges.encode(word)
        return chain.from_iterable(map(self.__getitem__, words))


@functools.cache
def merges(vocab_size: int) -> Merges:
    """Return the merges of this size; everyone in the process shares them."""
    return Merges(vocab_size)


@functools.cache
def chunks(vocab_size: int, special_tokens_in_text: bool) -> Chunks:
    """Return the chunks of this vocabulary; everyone in the process shares them."""
    return Chunks(vocab_size, special_tokens_in_text)


class ClipBpeTokenizer(Tokenizer):
    """Captions to ids as open_clip's `SimpleTokenizer` gives them.

    Threads may share one, and a pickle holds no vocabulary. Tokenizers of one size share their merges.

    Args:
        config: vocabulary and cleaning.
        context_length: number of ids in each row, special tokens included.
    """

    pad_id = 0

    def __init__(self, config: ClipBpeConfig, *, context_length: int) -> None:
        self.config = config
        self.context_length = context_length
        self.vocab_size = config.vocab_size
        self.sot_id, self.eot_id = self.vocab_size - 2, self.vocab_size - 1
        self._chunks = chunks(self.vocab_size, config.special_tokens_in_text)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_chunks"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._chunks = chunks(self.vocab_size, self.config.special_tokens_in_text)

    @property
    def encoder(self) -> Mapping[str, int]:
        """The id of each token as vocabularies write it: with `</w>` at the end of a word."""
        return self._chunks.merges.encoder

    @property
    def decoder(self) -> Mapping[int, str]:
        """How the token of each id is written."""
        return self._chunks.merges.decoder

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text` alone: no special tokens around it, no truncation."""
        return list(self._ids(text))

    def fill(self, texts: Sequence[str], rows: Any) -> list[int]:
        """Write the ids of `texts` into the int64 array `rows` `[N, L]`, and return the numbers of those that were cut.

        The array already holds padding. Words that no longer fit a row are not encoded.
        """
        room = rows.shape[1] - 2
        longer: list[int] = []
        for number, (row, text) in enumerate(zip(rows, texts, strict=True)):
            ids = [self.sot_id, *islice(self._ids(text), room + 1)]
            if len(ids) > room + 1:
                longer.append(number)
                ids.pop()
            ids.append(self.eot_id)
            row[: len(ids)] = ids
        return longer

    def decode(self, ids: Sequence[int] | Any) -> str:
        """Return the cleaned text that `ids` `[L]` stand for, with one space after each word but the last.

        Reads up to the first end of text. Bytes that are no UTF-8, as of a word that was cut, become U+FFFD.

        Raises:
            InputError: an id is no whole number or none of this vocabulary; its position is named.
        """
        spellings, spelled = self._chunks.merges.spellings, list[bytes]()
        for token in checked_ids(ids, self.vocab_size):
            if token == self.eot_id:
                break
            if token != self.sot_id:
                spelled.append(spellings[token])
        return b"".join(spelled).decode(errors="replace").removesuffix(" ")

    def files_for(self, library: str) -> Mapping[str, bytes]:
        """Return the files of transformers, which cleans captions in the one way of CLIP."""
        if library != "transformers" or self.config.cleaning != "lower":
            return {}
        special = self.config.special_tokens_in_text
        return transformers_files(_BYTES, len(_VISIBLE_BYTES), self._chunks.merges.merged, self.context_length, special)

    def _ids(self, text: str) -> chain[int]:
        return chain.from_iterable(map(self._chunks.__getitem__, cleaned_words(text, self.config.cleaning)))


@functools.cache
def _splitter(is_ascii: bool, special_tokens_in_text: bool) -> Callable[[str], list[str]]:
    """Return what finds the words: runs of letters, single digits, English endings, runs of other marks."""
    special = f"{START}|{END}|" if special_tokens_in_text else ""
    endings = f"(?i:{special}'s|'t|'re|'ve|'m|'ll|'d)"
    if is_ascii:
        return re.compile(rf"[A-Za-z]+|{endings}|[0-9]|[^\sA-Za-z0-9]+").findall
    import regex

    # IGNORECASE is not for the endings alone: under it, U+0345 is neither letter nor mark, and CLIP drops it.
    return regex.compile(rf"{endings}|\p{{L}}+|\p{{N}}|[^\s\p{{L}}\p{{N}}]+", regex.IGNORECASE).findall
