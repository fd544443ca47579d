"""Base of tokenizers: captions in, one padded tensor of token ids out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, cast

from zoo_core.boundary import Contract, checked
from zoo_core.boundary.plugin_code import maker_of
from zoo_core.errors import InputError, PluginError, describe, reason
from zoo_core.text.truncation import Overflow, checked_overflow, report

if TYPE_CHECKING:
    import torch

__all__ = ["Overflow", "Tokenizer", "checked_ids", "checked_texts"]

TEXTS_AT_ONCE = 4096
"""Texts that are encoded at a time: what libraries hold of each until its ids are written is large."""


class Tokenizer(Contract, ABC):
    """Turns captions into token ids. A subclass gives the three ids, `encode` and `decode`; the rest is derived.

    Built by a factory `(config, *, context_length: int) -> Tokenizer`.

    Attributes:
        context_length: number of ids in each row, special tokens included.
        vocab_size: largest id plus one.
        sot_id, eot_id: ids that open and close a caption; None where nothing does, as T5 has no start.
        pad_id: id that fills the rest of a row.
    """

    context_length: int
    vocab_size: int
    sot_id: int | None
    eot_id: int | None
    pad_id: int

    @property
    def sot_token_id(self) -> int | None:
        """`sot_id` under its name in other libraries."""
        return self.sot_id

    @property
    def eot_token_id(self) -> int | None:
        """`eot_id` under its name in other libraries."""
        return self.eot_id

    @property
    def all_special_ids(self) -> list[int]:
        """The ids that open and close a caption, as far as there are such."""
        return [token for token in (self.sot_id, self.eot_id) if token is not None]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(context_length={self.context_length}, vocab_size={self.vocab_size})"

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the ids of `text` alone: no special tokens, no truncation."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Return the cleaned text that `ids` stand for; special tokens and padding are left out."""

    @checked
    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text alone, as `encode` does; a tokenizer that is faster at many overrides this."""
        return [self.encode(text) for text in texts]

    def files(self) -> Mapping[str, bytes]:
        """Return what the tokenizer is made of beyond its config, by base name: a saved model brings it along.

        Nothing where all of it ships with the plugin.

        Raises:
            ZooError: it is not to be had here.
        """
        return {}

    @checked
    def use_files(self, folder: Path) -> None:
        """Take what `files` gave from a folder from now on, and from nowhere else.

        Raises:
            InputError: this tokenizer is not made of files.
        """
        raise InputError(f"{type(self).__name__} is not made of files, but {folder} holds some for it")

    def files_for(self, library: str) -> Mapping[str, bytes]:
        """Return the files in which another library finds this tokenizer, by base name; nothing where it cannot.

        Args:
            library: its name, as in `zoo convert --to`.

        Raises:
            ZooError: they are not to be had here.
        """
        return {}

    def __call__(
        self, texts: str | Sequence[str], context_length: int | None = None, *, overflow: Overflow = "warn"
    ) -> torch.Tensor:
        """Tokenize one caption or several.

        Args:
            texts: a string, or strings. A single string gives one row.
            context_length: length of each row; the tokenizer's own where None.
            overflow: what happens to captions that are longer than a row: `truncate` cuts them as the field does,
                `warn` also says how many there were, once for all, and `error` refuses them.

        Returns:
            int64 ids `[N, context_length]`: `sot`, the caption, `eot`, as far as there are such, then padding. Longer
            captions are cut and end in `eot`.

        Warns:
            TruncatedTextWarning: captions were cut, and how many.

        Raises:
            InputError: an entry is no string (its index and type are named), the length is below 3, `overflow` is
                unknown, or captions are too long and `overflow` is `error`.
        """
        checked_overflow(overflow)
        captions = checked_texts(texts)
        rows, longer = self.tokenize(captions, context_length)
        report(longer, captions, rows.shape[1], overflow)
        return rows

    @checked
    def tokenize(self, texts: Sequence[str], context_length: int | None = None) -> tuple[torch.Tensor, list[int]]:
        """Return the ids of calling it, and the numbers of the texts that were cut, without a warning.

        Raises:
            InputError: the length is below 3.
        """
        import torch

        length = self.context_length if context_length is None else context_length
        if not isinstance(length, int) or length < 3:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"context_length must be at least 3 (start, one token, end), found {describe(length)}")
        rows = torch.full((len(texts), length), self.pad_id, dtype=torch.int64)
        return rows, self.fill(texts, rows.numpy())

    def fill(self, texts: Sequence[str], rows: Any) -> list[int]:
        """Write the ids of `texts` into the int64 array `rows` `[N, L]`, which already holds padding.

        Returns:
            the numbers of the texts that were cut.
        """
        before, after = ([] if token is None else [token] for token in (self.sot_id, self.eot_id))
        return self._fill(texts, rows, before, after)

    def _fill(
        self, texts: Sequence[str], rows: Any, before: Sequence[int], after: Sequence[int], *, keep_end: bool = False
    ) -> list[int]:
        """Do what `fill` does with these ids around each text; with `keep_end` a long text loses its beginning."""
        room = rows.shape[1] - len(before) - len(after)
        longer: list[int] = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            some = texts[start : start + TEXTS_AT_ONCE]
            ids = self.encode_all(some)
            if len(ids) != len(some):
                raise PluginError(f"{self._maker}: encode_all must return ids of {len(some)} texts, found {len(ids)}")
            for number, row in enumerate(ids):
                if len(row) > room:
                    longer.append(start + number)
                    ids[number] = row[len(row) - room :] if keep_end else row[:room]
            try:
                _write(rows[start : start + TEXTS_AT_ONCE], ids, before, after)
            except (TypeError, ValueError, OverflowError) as error:
                raise PluginError(f"{self._maker}: the ids of a text must be whole numbers: {reason(error)}") from error
        return longer

    @property
    def _maker(self) -> str:
        return maker_of(type(self))


def _write(rows: Any, ids: list[list[int]], before: Sequence[int], after: Sequence[int]) -> None:
    """Write ids that fit, and what stands around them, into the array `rows` `[N, L]`, all rows at once."""
    import numpy as np

    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    first = len(before)
    rows[:, :first] = before
    is_text = np.arange(int(rows.shape[1]) - first) < lengths[:, None]  # [N, L - first]
    rows[:, first:][is_text] = np.fromiter(chain.from_iterable(ids), np.int64, int(lengths.sum()))
    for offset, token in enumerate(after):
        rows[np.arange(len(ids)), first + lengths + offset] = token


def checked_ids(ids: object, vocab_size: int) -> list[int]:
    """Return `ids`, a tensor, an array or a sequence, as a list of whole numbers from 0 to `vocab_size - 1`.

    Raises:
        InputError: an entry is no such number; its position is named.
    """
    listed: Any = getattr(ids, "tolist", lambda: ids)()
    if isinstance(listed, str | bytes | Mapping) or not isinstance(cast("object", listed), Iterable):
        raise InputError(f"ids: expected a tensor, an array or a list of token ids, found {describe(ids)}")
    checked: list[int] = []
    for position, value in enumerate(cast("Iterable[object]", listed)):
        token = value.__index__() if isinstance(value, SupportsIndex) and not isinstance(value, type) else -1
        if not 0 <= token < vocab_size:
            raise InputError(f"ids[{position}]: expected an id from 0 to {vocab_size - 1}, found {describe(value)}")
        checked.append(token)
    return checked


def checked_texts(texts: object) -> Sequence[str]:
    """Return `texts` as a sequence of strings.

    Raises:
        InputError: it is no string or sequence of strings; the offending entry's index and type are named.
    """
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, bytes) or not isinstance(texts, Sequence):
        raise InputError(f"expected a string or a sequence of strings, found {type(texts).__name__}{_hint(texts)}")
    entries = cast("Sequence[object]", texts)
    for index, text in enumerate(entries):
        if not isinstance(text, str):
            raise InputError(f"texts[{index}]: expected a string, found {type(text).__name__} ({describe(text)})")
    return cast("Sequence[str]", entries)


def _hint(texts: object) -> str:
    """Return how a collection that is no sequence of strings becomes one, or the token ids that a model takes."""
    if isinstance(texts, Mapping):
        return "; of a batch of token ids give ['input_ids']" if "input_ids" in texts else ""
    kind = getattr(getattr(texts, "dtype", None), "kind", "")
    if kind and kind in "iu":
        return "; token ids are a tensor, torch.from_numpy makes one"
    return "; make a list of it" if isinstance(texts, Iterable) and not isinstance(texts, bytes) else ""
