"""Ids of captions from a tokenizer of transformers.

Telling a tokenizer to take control tokens in a text for text is not enough. A unigram model has them among its pieces,
with the best score of all, and takes `</s>` in a caption for a word. Such captions are encoded again with a space in
the control token, and control tokens that are still left become the unknown token.

A backend of the tokenizers library is copied, and the copy is never changed, so threads need no lock. If it reads words
apart, captions are encoded word by word, and no word twice (`zoo_hf.pipeline` says when that is exact).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

from zoo_core.text.word_by_word import WordByWord, word_by_word
from zoo_hf.bounds import growth_of
from zoo_hf.pipeline import space_before_words

__all__ = ["CaptionEncoder"]

PROBES = ("a", "1", ".", "cat")
"""Texts, one of which any vocabulary has an id for."""


class CaptionEncoder:
    """Turns cleaned captions into ids.

    Args:
        loaded: a tokenizer of transformers.
        special_tokens_in_text: take a control token that is spelled out in a caption for what it is; else it is text.

    Attributes:
        around: ids that the tokenizer puts before and behind a caption; None where it does something else.
        keeps_end: a caption that is too long loses its beginning.
        growth: number of characters that may become of a single one, at most.
    """

    def __init__(self, loaded: Any, special_tokens_in_text: bool) -> None:
        self._loaded = loaded
        self._special = special_tokens_in_text
        self._backend = _copied_backend(loaded, special_tokens_in_text)
        roles = {getattr(loaded, f"{role}_token_id") for role in ("bos", "eos", "cls", "sep", "pad", "mask")} - {None}
        added = {token for token, entry in loaded.added_tokens_decoder.items() if entry.special}
        # a text may have the unknown token, unless that has another role too
        self._unknown: int | None = loaded.unk_token_id if loaded.unk_token_id not in roles else None
        self._control: frozenset[int] = frozenset({*roles, *added, *loaded.all_special_ids} - {self._unknown})
        names = sorted(map(loaded.convert_ids_to_tokens, self._control), key=len, reverse=True)
        self._names = re.compile("|".join(map(re.escape, names)))
        self.growth = 1 if self._backend is None else growth_of(self._backend)
        self.keeps_end = loaded.truncation_side == "left"
        self.around = self._around()
        self._by_words = self._word_by_word()

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text alone: nothing is put around them or cut off."""
        if self._by_words is None:
            return self._whole(texts)
        ids = list(map(self._by_words, texts))
        rest = [number for number, row in enumerate(ids) if row is None]
        for number, row in zip(rest, self._whole([texts[number] for number in rest]), strict=True):
            ids[number] = row
        return cast("list[list[int]]", ids)

    def _whole(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, encoded as a whole."""
        ids = self._encode(texts)
        if self._special or not self._control:
            return ids
        isdisjoint = self._control.isdisjoint
        for number, row in enumerate(ids):
            if isdisjoint(row):
                continue
            spaced = self._names.sub(lambda name: f"{name[0][0]} {name[0][1:]}", texts[number])
            unknown = [] if self._unknown is None else [self._unknown]
            ids[number] = []
            for token in self._encode([spaced])[0]:
                ids[number] += unknown if token in self._control else [token]
        return ids

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        if self._backend is not None:
            return [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]
        encoded = self._loaded(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=not self._special,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return encoded["input_ids"]

    def _around(self) -> tuple[list[int], list[int]] | None:
        """Return what the tokenizer puts before and behind a caption; None where it does something else."""
        for probe in PROBES:
            ids: list[int] = self._encode([probe])[0]
            whole: list[int] = self._loaded(probe)["input_ids"]
            for at in range(len(whole) - len(ids) + 1) if ids else ():
                before, after = whole[:at], whole[at + len(ids) :]
                if whole[at : at + len(ids)] == ids and self._control.issuperset(before + after):
                    return before, after
        return None

    def _word_by_word(self) -> WordByWord | None:
        """Return what encodes captions word by word; None where that may give other ids."""
        backend: Any = self._backend
        if backend is None or (space := space_before_words(backend)) is None:
            return None
        added = {
            token
            for token, entry in backend.get_added_tokens_decoder().items()
            if not (entry.special and backend.encode_special_tokens)
        }
        return word_by_word(
            lambda text: backend.encode(text, add_special_tokens=False).ids, space, self._control | added
        )


def _copied_backend(loaded: Any, special_tokens_in_text: bool) -> Any:
    """Return a copy of the tokenizer of the tokenizers library; None for one that is written in Python."""
    backend = getattr(loaded, "backend_tokenizer", None)
    if backend is None:
        return None
    from tokenizers import Tokenizer

    copy = Tokenizer.from_str(backend.to_str())
    copy.no_truncation()
    copy.no_padding()
    copy.encode_special_tokens = not special_tokens_in_text
    return copy
