"""What a model is given, held to what its towers take before they see it: images, patches, token ids, a tokenizer.

Token ids are looked at on the CPU only: to look at them on another device would wait for it in every call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo_core.boundary.plugin_code import maker_of
from zoo_core.config import TokenIds
from zoo_core.errors import ConfigError, InputError, PluginError, Problem, describe
from zoo_core.images import Preprocessor
from zoo_core.images.patches import PatchBatch, check_dense, check_patches, described
from zoo_core.interfaces import TextTower, VisionTower
from zoo_core.nn.precision import matrix_dtype
from zoo_core.nn.tracing import has_values
from zoo_core.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from zoo_core.config import ModelConfig

__all__ = [
    "check_image",
    "check_largest_ids",
    "check_prepared",
    "check_token_ids",
    "check_tokenized",
    "check_tokenizer",
    "checked_patches",
    "device_of",
    "is_raw",
]

_TOKEN_DTYPES = (torch.int64, torch.int32)


def device_of(tower: nn.Module, default: Tensor) -> torch.device:
    """Return where inputs of a tower go: to its parameters, but for those that accelerate keeps away until it runs."""
    like = next(tower.parameters(), default)
    away = like.is_meta and hasattr(tower, "_hf_hook")  # which moves inputs itself
    return torch.device("cpu") if away else like.device


def is_raw(image: object) -> bool:
    """Tell raw pixels from a preprocessed tensor, and from what is no tensor."""
    return isinstance(image, Tensor) and image.dtype == torch.uint8


def checked_patches(batch: Mapping[str, Any], tower: VisionTower) -> PatchBatch:
    """Return a patch batch that fits the tower, its pixels in the dtype of the tower's matrices.

    Raises:
        InputError: it does not fit, or the tower takes no patches.
    """
    if tower.image_patches is None:
        height, width = tower.image_size
        raise InputError(
            f"expected images [B, {tower.image_channels}, {height}, {width}], found a mapping: "
            f"{type(tower).__name__} takes no patches"
        )
    checked = check_patches(batch, tower.image_patches, tower.image_channels)
    return {**checked, "patches": checked["patches"].to(matrix_dtype(tower, checked["patches"].dtype))}


def check_image(image: Tensor, tower: VisionTower) -> None:
    """Hold preprocessed images to floating point `[B, C, H, W]` and to the sizes that the tower takes.

    Raises:
        InputError: they are something else.
    """
    check_dense(image)
    height, width = tower.image_size
    if image.ndim != 4 or image.shape[1] != tower.image_channels:
        hint = "; add the batch dimension with image[None]" if image.ndim == 3 else ""
        wanted = f"images [B, {tower.image_channels}, {height}, {width}]"
        raise InputError(f"expected {wanted}, found {described(image)}{hint}")
    if not image.is_floating_point():
        raise InputError(
            f"expected preprocessed images in floating point, or raw pixels as uint8, found {described(image)}"
        )
    if not tower.variable_image_size and tuple(image.shape[2:]) != tower.image_size:
        raise InputError(
            f"expected images of {height} x {width} pixels, found {described(image)}; preprocess them with "
            "model.preprocess, which takes raw pixels as uint8, or build the model for this size with "
            "overrides=['vision.image_size=...']"
        )
    if tower.image_patches is not None:
        rows, columns = tower.image_patches
        if image.shape[2] % rows or image.shape[3] % columns or 0 in image.shape[2:]:
            wanted = f"images that are whole patches of {rows} x {columns} pixels"
            raise InputError(f"expected {wanted}, found {described(image)}")


def check_tokenizer(tokenizer: Tokenizer, tower: TextTower, config: ModelConfig | None) -> None:
    """Hold a tokenizer that may have been loaded just now to the tower, as configs are where the ids are known.

    Raises:
        ConfigError: its size, its padding or its end of text is not the tower's; the key is named.
    """
    name = type(tokenizer).__name__ if config is None else config.tokenizer.type
    for key in ("context_length", "vocab_size", "sot_id", "eot_id", "pad_id"):
        found = getattr(tokenizer, key, None)
        if not isinstance(found, int) and (found is not None or key not in ("sot_id", "eot_id")):
            raise PluginError(f"{maker_of(type(tokenizer))}: {key} must be a whole number, found {describe(found)}")
    ids = TokenIds(name, tokenizer.vocab_size, tokenizer.eot_id, tokenizer.pad_id)
    broken = [] if config is None else [Problem(why, f"text.{key}") for key, why in config.text.rules_with(ids)]
    if not broken and tower.pad_id not in (None, ids.padding):
        message = f"the text tower takes id {tower.pad_id} for padding, but tokenizer '{name}' pads with {ids.padding}"
        broken = [Problem(message, "tokenizer")]
    if broken:
        raise ConfigError(broken)


def check_tokenized(ids: object, tokenizer: Tokenizer) -> None:
    """Raise a `PluginError` for what a tokenizer gave, if it is no batch of its own ids."""
    length, count = tokenizer.context_length, tokenizer.vocab_size
    if isinstance(ids, Tensor) and ids.dtype == torch.int64 and ids.ndim == 2 and ids.shape[1] == length:
        low, high = (int(edge) for edge in torch.aminmax(ids)) if ids.numel() and has_values(ids) else (0, 0)
        if low >= 0 and high < count:
            return
        found = f"ids from {low} to {high}"
    else:
        found = described(ids) if isinstance(ids, Tensor) else type(ids).__name__
    told = f"it must give int64 ids [N, {length}] from 0 to {count - 1}, found {found}"
    raise PluginError(f"{maker_of(type(tokenizer))}: {told}")


def check_prepared(batch: object, count: int, preprocess: Preprocessor) -> None:
    """Raise a `PluginError` for what a preprocessor gave, if it is no batch of `count` images or of their patches.

    Patches are checked as those of users are, since the tower tells what they have to be.
    """
    if isinstance(batch, Mapping):
        return
    wanted = (count, 3, *preprocess.image_size)
    if not isinstance(batch, Tensor) or batch.shape != wanted or not batch.is_floating_point():
        found = described(batch) if isinstance(batch, Tensor) else type(batch).__name__
        told = f"it must give floating-point images {list(wanted)}, or patches, found {found}"
        raise PluginError(f"{maker_of(type(preprocess))}: {told}")


def check_token_ids(text: Tensor, tower: TextTower) -> None:
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


def check_largest_ids(text: Tensor, largest: int | None) -> None:
    """Check on the CPU that the largest id of each row is the one at which the tower reads the feature."""
    if largest is None or text.device.type != "cpu" or not has_values(text) or not text.numel():
        return
    wrong = text.amax(dim=-1) != largest
    if bool(wrong.any()):
        row = int(wrong.int().argmax())
        raise InputError(
            f"the feature is read at the end of text, id {largest}, but the largest id in row {row} of the ids is "
            f"{int(text[row].max())}; tokenize with model.tokenizer, which keeps the end when it shortens a text"
        )
