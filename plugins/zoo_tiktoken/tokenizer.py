"""Tokenizers of OpenAI's encodings.

They load their vocabulary at first use. A saved model holds it, since tiktoken itself only downloads, from a server of
OpenAI's and not from the Hub.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_core.boundary.library_code import library_code
from zoo_core.documents.json_reader import read_json
from zoo_core.errors import ConfigError, InputError, Problem, describe, one_of
from zoo_core.text.cleaning import clean_and_collapse
from zoo_core.text.tokenizer import Tokenizer, checked_ids
from zoo_core.text.word_by_word import WordByWord, word_by_word
from zoo_tiktoken.config import TiktokenConfig

if TYPE_CHECKING:
    import tiktoken

__all__ = ["TiktokenTokenizer"]

RANKS, SPLITTING = "ranks.tiktoken", "encoding.json"
"""What a saved encoding is made of."""

R50K = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|"
    r"\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
CUT_AT_SPACES = frozenset({R50K, CL100K})
"""Regular expressions by which r50k_base, p50k_base and cl100k_base split text. None looks back, and a match among
words with one space between them has the space at its beginning or not at all. So a word is split alike wherever it
stands."""


class TiktokenTokenizer(Tokenizer):
    """Captions to ids of a tiktoken encoding; literal special tokens in a caption are plain text.

    Above the encoding's `n` ids come the end of text `n`, padding `n + 1` and the start of text `n + 2`.

    Args:
        config: which encoding, and what is put around a caption.
        context_length: number of ids in each row, special tokens included.

    Raises:
        ConfigError: at first use: the encoding is not to be had, or has another size than the config says.
    """

    def __init__(self, config: TiktokenConfig, *, context_length: int) -> None:
        self.config = config
        self.context_length = context_length
        self.vocab_size = config.vocab_size
        self._end, self.pad_id, self._start = range(self.vocab_size - 3, self.vocab_size)
        self.sot_id = self._start if config.add_bos else None
        self.eot_id = self._end if config.add_eos else None
        self._folder: Path | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("loaded", "_by_words")}

    def files(self) -> dict[str, bytes]:
        """Return the ranks of the encoding as OpenAI publishes them, and how text is split."""
        encoding: Any = self.loaded
        ranks: dict[bytes, int] = encoding._mergeable_ranks
        lines = [
            base64.b64encode(token) + b" %d\n" % rank for token, rank in sorted(ranks.items(), key=lambda item: item[1])
        ]
        splitting = {"pat_str": encoding._pat_str, "special_tokens": encoding._special_tokens}
        return {RANKS: b"".join(lines), SPLITTING: json.dumps(splitting, indent=1).encode()}

    def use_files(self, folder: Path) -> None:
        """Load the encoding from a folder in place of tiktoken's own."""
        self._folder = folder
        for name in ("loaded", "_by_words"):
            vars(self).pop(name, None)

    @cached_property
    def loaded(self) -> tiktoken.Encoding:
        """The encoding of tiktoken."""
        name = self.config.encoding
        loaded = _load_encoding(name) if self._folder is None else _read_encoding(name, self._folder)
        if loaded.n_vocab + 3 != self.vocab_size:
            raise ConfigError(
                Problem(
                    f"encoding '{self.config.encoding}' has {loaded.n_vocab} ids, {loaded.n_vocab + 3} with end, "
                    f"padding and start, not {self.vocab_size}; set vocab_size: {loaded.n_vocab + 3}",
                    "tokenizer.vocab_size",
                )
            )
        return loaded

    @cached_property
    def _by_words(self) -> WordByWord | None:
        if self.loaded._pat_str not in CUT_AT_SPACES:
            return None
        return word_by_word(self.loaded.encode_ordinary, " ")

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text` alone: no special tokens around it, no truncation."""
        cleaned, encoding, name = clean_and_collapse(text, self.config.cleaning), self.loaded, self.config.encoding
        with library_code(lambda cause: InputError(f"encoding '{name}' cannot encode {describe(text)}: {cause}")):
            ids = None if self._by_words is None else self._by_words(cleaned)
            return encoding.encode_ordinary(cleaned) if ids is None else ids

    def decode(self, ids: Sequence[int] | Any) -> str:
        """Return the text that `ids` `[L]` stand for, up to the first end of text or padding.

        Bytes that are no UTF-8, as of a character that was cut, become U+FFFD.

        Raises:
            InputError: an id is no whole number or none of this vocabulary; its position is named.
        """
        body: list[int] = []
        for token in checked_ids(ids, self.vocab_size):
            if token in (self._end, self.pad_id):
                break
            if token != self._start:
                body.append(token)
        name, encoding = self.config.encoding, self.loaded
        with library_code(
            lambda cause: InputError(f"encoding '{name}' cannot decode these ids: {cause}")
        ):  # it has gaps
            return encoding.decode(body)


def _read_encoding(name: str, folder: Path) -> tiktoken.Encoding:
    """Return the encoding that `TiktokenTokenizer.files` wrote; tiktoken's own reader would cache it by its path."""
    import tiktoken

    def refused(cause: str) -> ConfigError:
        return ConfigError(Problem(f"holds no encoding of tiktoken: {cause}", source=str(folder)))

    splitting = read_json(folder / SPLITTING).data
    with library_code(refused):
        lines = (folder / RANKS).read_bytes().splitlines()
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in map(bytes.split, lines)}
        return tiktoken.Encoding(name, mergeable_ranks=ranks, **splitting)


def _load_encoding(name: str) -> tiktoken.Encoding:
    import tiktoken

    names = tiktoken.list_encoding_names()
    if name not in names:
        raise ConfigError(Problem(f"tiktoken has no encoding '{name}' ({one_of(names)})", "tokenizer.encoding"))

    def refused(cause: str) -> ConfigError:  # no connection, a damaged file
        fix = "set TIKTOKEN_CACHE_DIR to a folder that holds them"
        message = f"the ranks of encoding '{name}' cannot be downloaded: {cause}; {fix}"
        return ConfigError(Problem(message, "tokenizer.encoding"))

    with library_code(refused):
        return tiktoken.get_encoding(name)
