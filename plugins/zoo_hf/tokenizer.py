"""Tokenizers of transformers.

They load their vocabulary at first use, not when they are built. So a model can be built and used with token ids where
there is no network. The size of the vocabulary, which the text tower has to match, is in the config, and the loaded
tokenizer is compared with it. A saved model holds the files of its tokenizer, which are then loaded (`use_files`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from zoo_core.boundary.library_code import library_code
from zoo_core.documents import TOKENIZER_CONFIG
from zoo_core.documents.json_reader import parse_json
from zoo_core.errors import ConfigError, InputError, Problem, describe
from zoo_core.text.cleaning import clean_and_collapse
from zoo_core.text.tokenizer import Tokenizer, checked_ids
from zoo_hf.bounds import LONGEST, excess
from zoo_hf.captions import CaptionEncoder
from zoo_hf.config import HfTokenizerConfig

__all__ = ["HfTokenizer"]

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "config.json",  # says which class reads the others, where tokenizer_config.json does not
)
"""Files of tokenizers; no repository has them all."""
OPTIONS = "tokenizer_config.json"


class HfTokenizer(Tokenizer):
    """Captions to ids as open_clip's `HFTokenizer` gives them, always padded on the right.

    Threads may share one. A pickle holds the config alone.

    Args:
        config: which tokenizer, and how text is cleaned.
        context_length: number of ids in each row, special tokens included.

    Raises:
        ConfigError: at first use: its folder is not there, or it is not what the config says.
        DownloadError: at first use: its files cannot be had from the Hub, or are not what they were at first.
    """

    def __init__(self, config: HfTokenizerConfig, *, context_length: int) -> None:
        self.config = config
        self.context_length = context_length
        self.vocab_size = config.vocab_size
        self._folder: Path | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: vars(self)[name] for name in ("config", "context_length", "vocab_size", "_folder")}

    def files(self) -> dict[str, bytes]:
        """Return those of its files that there are."""
        folder = self._folder or self.config.fetch(FILES, "tokenizer")
        with library_code(self._unreadable):
            return {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}

    def files_for(self, library: str) -> dict[str, bytes]:
        """Return its files for transformers, whose they are; a control token in a caption is there what it is here."""
        if library != "transformers":
            return {}
        files = self.files()
        options = parse_json(files.get(OPTIONS, b"{}").decode(), OPTIONS, TOKENIZER_CONFIG).data
        split = not self.config.special_tokens_in_text
        if bool(options.get("split_special_tokens")) is not split:
            files[OPTIONS] = (json.dumps(options | {"split_special_tokens": split}, indent=2) + "\n").encode()
        return files

    def use_files(self, folder: Path) -> None:
        """Load the tokenizer from a folder in place of `config.name`."""
        self._folder = folder
        for name in ("loaded", "_captions"):
            vars(self).pop(name, None)

    @cached_property
    def loaded(self) -> Any:
        """The tokenizer of transformers."""
        with library_code(self._unreadable):
            folder = self._folder or self.config.fetch(FILES, "tokenizer")
            for name in FILES:  # transformers would wait for a pipe
                if (folder / name).exists() and not (folder / name).is_file():
                    message = f"cannot be read as a tokenizer: {folder / name} is no regular file"
                    raise _wrong(self.config, "name", message)
            from transformers import AutoTokenizer

            loaded = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)  # else it asks whether to run code
            _check(loaded, self.config)
        return loaded

    def _unreadable(self, cause: str) -> ConfigError:
        at = "" if self._folder is None else f" in {self._folder}"
        return _wrong(self.config, "name", f"cannot be read as a tokenizer{at}: {cause}")

    @property
    def pad_id(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Id that fills the rest of a row."""
        return self.loaded.pad_token_id

    @property
    def sot_id(self) -> int | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Id that opens a caption: start of text, or the class token; None for a tokenizer that has neither."""
        return _first(self.loaded.bos_token_id, self.loaded.cls_token_id)

    @property
    def eot_id(self) -> int | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Id that closes a caption: end of text, or the separator; None for a tokenizer that has neither."""
        return _end_of(self.loaded)

    @cached_property
    def _captions(self) -> CaptionEncoder:
        with library_code(self._unreadable):
            captions = CaptionEncoder(self.loaded, self.config.special_tokens_in_text)
        if captions.around is None:
            raise _wrong(self.config, "name", "puts more around a caption than special tokens")
        return captions

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text` alone: no special tokens around it, no truncation."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text alone, as `encode` does.

        Raises:
            InputError: the tokenizer fails on a text, or might make too long a one of it; the text is named.
        """
        captions, cleaned = self._captions, [clean_and_collapse(text, self.config.cleaning) for text in texts]
        longest = max(map(len, cleaned), default=0)
        if longest * captions.growth > LONGEST:
            most = LONGEST // captions.growth
            raise InputError(f"tokenizer '{self.config.name}' takes {most:,} characters at most, found {longest:,}")

        def refused(cause: str) -> InputError:
            if len(texts) > 1:
                for text in texts:
                    self.encode_all([text])  # the first on which it fails is named
            return InputError(f"tokenizer '{self.config.name}' cannot encode {describe(texts[0])}: {cause}")

        with library_code(refused):
            return captions(cleaned)

    def fill(self, texts: Sequence[str], rows: Any) -> list[int]:
        """Write the ids of `texts` into the int64 array `rows` `[N, L]`, and return the numbers of those that were cut.

        The array already holds padding. Longer captions lose their end, or their beginning where the tokenizer says so,
        and keep the special tokens that the tokenizer adds.
        """
        loaded, clips = self.loaded, self.config.mode == "clips"
        before, after = ([loaded.bos_token_id], [loaded.eos_token_id]) if clips else self._captions.around or ([], [])
        room = rows[:, :-1] if clips else rows
        if room.shape[1] < len(before) + len(after):
            raise InputError(f"context_length must be at least {len(before) + len(after)}, found {rows.shape[1]}")
        longer = self._fill(texts, room, before, after, keep_end=self._captions.keeps_end and not clips)
        if clips:
            rows[:, -1] = loaded.cls_token_id
        if self.config.strip_sep_token and loaded.sep_token_id is not None:
            rows[rows == loaded.sep_token_id] = self.pad_id
        return longer

    def decode(self, ids: Sequence[int] | Any) -> str:
        """Return the text that `ids` `[L]` stand for; special tokens and padding are left out.

        Raises:
            InputError: an id is no whole number or none of this vocabulary (its position is named), or the tokenizer
                fails.
        """
        checked, loaded = checked_ids(ids, self.vocab_size), self.loaded
        with library_code(lambda cause: InputError(f"tokenizer '{self.config.name}' cannot decode these ids: {cause}")):
            return loaded.decode(checked, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _check(loaded: Any, config: HfTokenizerConfig) -> None:
    """Refuse a tokenizer that is not what the config says, or that a caption can make a bomb of."""
    size = max(loaded.get_vocab().values(), default=-1) + 1
    if size != config.vocab_size:
        raise _wrong(config, "vocab_size", f"has {size} ids, not {config.vocab_size}; set vocab_size: {size}")
    if loaded.pad_token_id is None:
        raise _wrong(config, "name", "has no padding token")
    backend = getattr(loaded, "backend_tokenizer", None)
    too_much = None if backend is None else excess(backend)
    if too_much is not None:
        raise _wrong(config, "name", too_much)
    for key, expected, actual, does in (
        ("pad_id", config.pad_id, loaded.pad_token_id, "pads with"),
        ("eos_id", config.eos_id, _end_of(loaded), "closes captions with"),
    ):
        if expected not in (None, actual):  # the text tower was checked with the ids of the config
            fix = f"set {key}: {'null' if actual is None else actual}"
            raise _wrong(config, key, f"{does} id {actual}, not {expected}; {fix}")
    if config.language is not None:
        _set_language(loaded, config)
    needed = {"clips": ("bos_token", "eos_token", "cls_token")}.get(config.mode or "", ())
    lacking = [token for token in needed if getattr(loaded, f"{token}_id") is None]
    if lacking:
        raise _wrong(config, "mode", f"has no {', '.join(lacking)}, which mode '{config.mode}' needs")


def _end_of(loaded: Any) -> int | None:
    return _first(loaded.eos_token_id, loaded.sep_token_id)


def _set_language(loaded: Any, config: HfTokenizerConfig) -> None:
    """Set the language through `src_lang`: transformers 5 forgets what `set_src_lang_special_tokens` sets."""
    if not isinstance(getattr(type(loaded), "src_lang", None), property):
        raise _wrong(config, "language", "puts no language into its rows; leave language out")
    language = loaded.convert_tokens_to_ids(config.language)
    if language in (None, loaded.unk_token_id):
        raise _wrong(config, "language", f"does not know the language '{config.language}'")
    loaded.src_lang = config.language
    if language not in loaded("")["input_ids"]:
        raise _wrong(config, "language", f"does not put the language '{config.language}' into its rows")


def _wrong(config: HfTokenizerConfig, key: str, message: str) -> ConfigError:
    return ConfigError(Problem(f"tokenizer '{config.name}' {message}", f"tokenizer.{key}"))


def _first(*ids: int | None) -> int | None:
    return next((token for token in ids if token is not None), None)
