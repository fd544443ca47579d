"""Captions and token ids as a text tower takes them.

The values of token ids are checked on the CPU only, since on another device each check would wait for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo_core.boundary.plugin_code import maker_of
from zoo_core.config import TokenIds
from zoo_core.errors import ConfigError, InputError, PluginError, Problem, ZooError, describe
from zoo_core.images.patches import check_dense, described
from zoo_core.interfaces import TextTower
from zoo_core.models.encode_text import encode_captions, encode_rows
from zoo_core.models.modality import Modality, device_of
from zoo_core.nn.tracing import has_values, is_symbolic
from zoo_core.text.tokenizer import Tokenizer, checked_texts
from zoo_core.text.truncation import Overflow, checked_overflow

if TYPE_CHECKING:
    from zoo_core.config import ModelConfig

__all__ = ["TextModality", "check_tokenizer"]

CAPTIONS = ("a photo of a cat, and 2 dogs", "Zwei Hünde & ein 猫!", "a")
"""Captions of the probe. Upper case, marks, a digit and letters beyond ASCII show in the ids how text is cleaned;
behind the shortest there is padding in every row that is longer than a few ids."""

_TOKEN_DTYPES = (torch.int64, torch.int32)


class TextModality(Modality):
    """Text: strings, and token ids `[B, L]`."""

    def check(self, batch: Tensor, tower: TextTower) -> None:
        """Hold token ids to int64 or int32 `[B, L]`, the lengths of the tower and its vocabulary."""
        _check_token_ids(batch, tower)

    def example(self, tower: TextTower, count: int, processor: Tokenizer | None = None) -> Tensor:
        """Return token ids `[count, L]` of full length: those of a long caption where there is a tokenizer."""
        length = tower.context_length
        if processor is not None:
            with suppress(ZooError):  # a tokenizer whose files are not here
                return processor(["a " * (length - 2)]).repeat(count, 1)
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(tower.vocab_size - 1, (count, length), generator=generator)
        ids[:, -1] = tower.vocab_size - 1 if tower.eos_id is None else tower.eos_id
        return ids

    def probe_inputs(self) -> Sequence[str]:
        """Return three captions of different lengths."""
        return CAPTIONS

    def prepare(self, processor: Tokenizer, raw: Sequence[str]) -> Tensor:
        """Return the token ids of captions; those that are too long are cut in silence."""
        return processor(raw, overflow="truncate")

    def prepare_one(self, processor: Tokenizer, raw: Any, *, generator: torch.Generator | None = None) -> str:
        """Return a caption as it is: tokenizers take many at once; the arguments are those of `Modality`."""
        return _as_text(raw)

    def collate(self, processor: Tokenizer, prepared: Sequence[str]) -> Tensor:
        """Return the token ids of captions."""
        return self.prepare(processor, prepared)

    def check_raw(self, raw: Any, limits: Mapping[str, Any]) -> None:
        """Refuse captions of fewer than `min_text` characters."""
        length, least = len(_as_text(raw).strip()), limits.get("min_text", 1)
        if length < least:
            raise InputError(f"the caption has {length} characters, fewer than {least}")

    def inputs(self, model: Any, tower: TextTower, value: Any, *, overflow: Overflow = "warn") -> Tensor:
        """Return token ids `[B, L]`; the arguments and errors are those of `Modality.inputs`.

        `overflow` says what happens to strings that are too long; see `DualEncoder.encode_text`.
        """
        if is_symbolic(value):
            return value
        if isinstance(value, Tensor):
            return _checked_ids(model, tower, value)
        if model.tokenizer is None:
            raise InputError(
                f"expected token ids [B, L], found {type(value).__name__}: this model has no tokenizer; "
                "build it with zoo.build, or set model.tokenizer"
            )
        return _from_tokenizer(model, tower, model.tokenizer, model.tokenizer(value, overflow=overflow))

    def encode(self, model: Any, tower: TextTower, value: Any, *, overflow: Overflow = "warn") -> Tensor:
        """Return the features `[B, embed_dim]` of strings or token ids, each caption without its padding."""
        checked_overflow(overflow)
        tokenizer = model.tokenizer
        if isinstance(value, Tensor) or is_symbolic(value) or tower.training or tokenizer is None:
            return encode_rows(tower, self.inputs(model, tower, value, overflow=overflow))

        def encode(ids: Tensor) -> Tensor:
            return encode_rows(tower, _from_tokenizer(model, tower, tokenizer, ids))

        return encode_captions(checked_texts(value), tokenizer, encode, overflow)


def _as_text(raw: Any) -> str:
    """Return a caption, possibly the bytes of a file, as a string."""
    try:
        text = raw.decode("utf-8-sig") if isinstance(raw, bytes) else raw
    except UnicodeDecodeError as error:
        raise InputError(f"the caption is not UTF-8 text (byte {error.start})") from None
    if not isinstance(text, str):
        raise InputError(f"expected a caption, found {describe(raw)}")
    return text


def _from_tokenizer(model: Any, tower: TextTower, tokenizer: Tokenizer, ids: Tensor) -> Tensor:
    """Return the ids that a tokenizer gave, on the tower's device, after both were held to each other."""
    check_tokenizer(tokenizer, tower, _config(model))
    _check_tokenized(ids, tokenizer)
    return _checked_ids(model, tower, ids.to(device_of(tower, model.logit_scale)))


def _checked_ids(model: Any, tower: TextTower, ids: Tensor) -> Tensor:
    """Return token ids that the tower takes; on the CPU, the largest of each row is the one at the feature's place."""
    _check_token_ids(ids, tower)
    config = _config(model)
    if config is not None and not torch.compiler.is_compiling():
        largest = config.text.largest_id(config.tokenizer.token_ids())
        if largest is None or ids.device.type != "cpu" or not has_values(ids) or not ids.numel():
            return ids
        wrong = ids.amax(dim=-1) != largest
        if bool(wrong.any()):
            row = int(wrong.int().argmax())
            raise InputError(
                f"the feature is read at the end of text, id {largest}, but the largest id in row {row} of the ids is "
                f"{int(ids[row].max())}; tokenize with model.tokenizer, which keeps the end when it shortens a text"
            )
    return ids


def _config(model: Any) -> ModelConfig | None:
    return model.__dict__.get("config")  # not getattr: CLIP would look for it in its text tower


def check_tokenizer(tokenizer: Tokenizer, tower: TextTower, config: ModelConfig | None) -> None:
    """Hold a tokenizer that may have been loaded just now to the tower, as configs are where the ids are known.

    Raises:
        ConfigError: its size, its padding or its end of text is not the tower's; the key is named.
    """
    name = type(tokenizer).__name__ if config is None else config.tokenizer.type
    for key in ("context_length", "vocab_size", "sot_id", "eot_id", "pad_id"):
        value = getattr(tokenizer, key, None)
        if not isinstance(value, int) and (value is not None or key not in ("sot_id", "eot_id")):
            raise PluginError(f"{maker_of(type(tokenizer))}: {key} must be a whole number, found {describe(value)}")
    ids = TokenIds(name, tokenizer.vocab_size, tokenizer.eot_id, tokenizer.pad_id)
    broken = [] if config is None else [Problem(why, f"text.{key}") for key, why in config.text.rules_with(ids)]
    if not broken and tower.pad_id not in (None, ids.padding):
        message = f"the text tower takes id {tower.pad_id} for padding, but tokenizer '{name}' pads with {ids.padding}"
        broken = [Problem(message, "tokenizer")]
    if broken:
        raise ConfigError(broken)


def _check_tokenized(ids: object, tokenizer: Tokenizer) -> None:
    """Raise a `PluginError` for what a tokenizer gave, if it is no batch of its own ids."""
    length, count = tokenizer.context_length, tokenizer.vocab_size
    if isinstance(ids, Tensor) and ids.dtype == torch.int64 and ids.ndim == 2 and ids.shape[1] == length:
        low, high = (int(edge) for edge in torch.aminmax(ids)) if ids.numel() and has_values(ids) else (0, 0)
        if low >= 0 and high < count:
            return
        output = f"ids from {low} to {high}"
    else:
        output = described(ids) if isinstance(ids, Tensor) else type(ids).__name__
    promise = f"it must give int64 ids [N, {length}] from 0 to {count - 1}, found {output}"
    raise PluginError(f"{maker_of(type(tokenizer))}: {promise}")


def _check_token_ids(text: Tensor, tower: TextTower) -> None:
    """Hold token ids to int64 or int32 `[B, L]`, to the lengths that the tower takes, and to its vocabulary.

    Raises:
        InputError: they are something else.
    """
    check_dense(text)
    length = tower.context_length
    if text.ndim != 2 or text.dtype not in _TOKEN_DTYPES:
        hint = "; add the batch dimension with ids[None]" if text.ndim == 1 else ""
        raise InputError(f"expected int64 token ids [B, {length}], found {described(text)}{hint}")
    if not (1 if tower.variable_text_length else length) <= text.shape[1] <= length:
        allowed = f"1 to {length}" if tower.variable_text_length else f"exactly {length}"
        raise InputError(f"expected {allowed} tokens in each row, found {described(text)}")
    if text.device.type != "cpu" or not has_values(text) or not text.numel():
        return
    low, high = (int(edge) for edge in torch.aminmax(text))
    if low < 0 or high >= tower.vocab_size:
        raise InputError(
            f"token ids run from {low} to {high}; this text tower knows 0 to {tower.vocab_size - 1}. "
            "Tokenize with model.tokenizer"
        )
