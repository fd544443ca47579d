"""Patch batches: images as patches, each on its own grid.

A patch batch is a mapping of three tensors: `patches` `[B, N, P * P * C]`, the pixels of each patch with the channels
last; `patch_coord` int64 `[B, N, 2]`, its row and column; `patch_valid` bool `[B, N]`, which is False for padding. This
is the batch of NaFlex (Tschannen et al. 2025, https://arxiv.org/abs/2502.14786) as timm lays it out. Towers
also read a patch's position from its index, so the patches of an image are a whole grid, row by row, and padding comes
after them. Anything else would be encoded wrongly without an error; `check_patches` refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from zoo_core.errors import InputError
from zoo_core.nn.tracing import has_values

__all__ = ["PATCH_KEYS", "PatchBatch", "check_dense", "check_patches", "described", "pad_patches", "patchify"]

PatchBatch = Mapping[str, Tensor]

PATCH_KEYS = ("patches", "patch_coord", "patch_valid")


def patchify(image: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
    """Cut an image `[C, H, W]` into patches.

    Args:
        image: its sides are multiples of those of a patch.
        size: height and width in pixels of a patch.

    Returns:
        `patches` `[N, P * P * C]` row by row, `patch_coord` `[N, 2]`, `patch_valid` `[N]`.
    """
    rows, columns = image.shape[1] // size[0], image.shape[2] // size[1]
    cut = image.reshape(image.shape[0], rows, size[0], columns, size[1])
    coord = torch.cartesian_prod(*(torch.arange(count, device=image.device) for count in (rows, columns)))
    return {
        "patches": cut.permute(1, 3, 2, 4, 0).flatten(2).flatten(0, 1),
        "patch_coord": coord,
        "patch_valid": torch.ones(rows * columns, dtype=torch.bool, device=image.device),
    }


def pad_patches(images: Sequence[Mapping[str, Tensor]], length: int | None = None) -> dict[str, Tensor]:
    """Return the patch batch of one image or more, each as `patchify` returns it.

    Args:
        images: their patches.
        length: number of patches with padding; that of the largest image where None.

    Raises:
        InputError: an image has other keys.
    """
    for row, image in enumerate(images):
        if set(image) != set(PATCH_KEYS):
            keys = ", ".join(image) or "nothing"
            raise InputError(f"pictures[{row}]: expected {', '.join(PATCH_KEYS)}, found {keys}")
    counts = [len(image["patches"]) for image in images]
    length = max(counts) if length is None else length
    batch = {key: value.new_zeros(len(images), length, *value.shape[1:]) for key, value in images[0].items()}
    for row, (image, count) in enumerate(zip(images, counts, strict=True)):
        for key, value in image.items():
            batch[key][row, :count] = value
    return batch


def check_patches(batch: Mapping[str, Any], size: tuple[int, int], channels: int) -> dict[str, Tensor]:
    """Return the three tensors of a patch batch. `seq_len`, which timm's loaders add, has to be their N.

    Args:
        batch: what a caller gave.
        size: height and width in pixels of the patches that the tower takes.
        channels: those of a pixel.

    Raises:
        InputError: a key is missing or unknown, a shape or dtype does not fit, an image has no patch at all, or its
            patches are no whole grid, row by row.
    """
    missing = [key for key in PATCH_KEYS if key not in batch]
    unknown = sorted(str(key) for key in batch if key not in (*PATCH_KEYS, "seq_len"))
    if missing or unknown:
        problem = f"lacks {', '.join(missing)}" if missing else f"has the unknown key '{unknown[0]}'"
        raise InputError(f"a patch batch holds {', '.join(PATCH_KEYS)}; this one {problem}")
    for key in PATCH_KEYS:
        if not isinstance(batch[key], Tensor):
            raise InputError(f"{key}: expected a tensor, found {type(batch[key]).__name__}")
        check_dense(batch[key])
    patches, coord, valid = (cast("Tensor", batch[key]) for key in PATCH_KEYS)
    width = size[0] * size[1] * channels
    if patches.ndim != 3 or patches.shape[2] != width or not patches.is_floating_point():
        what = f"[B, N, {width}] in floating point, pixels of {size[0]} x {size[1]} with {channels} channels"
        raise InputError(f"patches: expected {what}, found {described(patches)}")
    for key, tensor, shape, dtype in (
        ("patch_coord", coord, (*patches.shape[:2], 2), torch.int64),
        ("patch_valid", valid, tuple(patches.shape[:2]), torch.bool),
    ):
        if tuple(tensor.shape) != shape or tensor.dtype != dtype:
            raise InputError(f"{key}: expected {dtype} {list(shape)}, found {described(tensor)}")
    if batch.get("seq_len", patches.shape[1]) != patches.shape[1]:
        raise InputError(f"seq_len: expected {patches.shape[1]}, as there are patches, found {batch['seq_len']!r}")
    _check_grids(coord, valid)
    return {"patches": patches, "patch_coord": coord, "patch_valid": valid}


def _check_grids(coord: Tensor, valid: Tensor) -> None:
    """Check that each image has a whole grid of patches in row-major order, with padding behind them."""
    length = valid.shape[1]
    if not has_values(valid) or not len(valid):
        return
    if not length:
        raise InputError("patch_valid: no picture has a valid patch")
    counts = valid.sum(dim=1)
    rows, columns = (coord.amax(dim=1) + 1).unbind(dim=1)  # padding must not reach beyond the grid either
    index = torch.arange(length, device=valid.device)  # [N]
    width = columns.clamp(min=1)[:, None]  # [B, 1]
    grid = torch.stack([index // width, index % width], dim=-1)  # [B, N, 2]
    in_order = ((coord == grid).all(dim=-1) | ~valid) & (valid == (index < counts[:, None]))  # [B, N]
    whole = (rows <= length) & (columns <= length) & (rows * columns == counts) & (coord >= 0).all(dim=2).all(dim=1)
    sound = in_order.all(dim=1) & whole
    if bool(sound.all()):
        return
    row = int(sound.long().argmin())
    if not int(counts[row]):
        raise InputError(f"patch_valid: picture {row} has no valid patch")
    raise InputError(
        f"patch_coord: the {int(counts[row])} patches of picture {row} are no whole grid, row by row from [0, 0] with "
        "padding behind; towers tell places from that order"
    )


def check_dense(tensor: Tensor) -> None:
    """Refuse sparse and nested tensors, which towers compute nothing of."""
    if tensor.is_nested or tensor.layout != torch.strided:
        kind = "a nested tensor" if tensor.is_nested else f"one of layout {tensor.layout}"
        fix = "torch.nested.to_padded_tensor" if tensor.is_nested else "its .to_dense()"
        raise InputError(f"expected a dense tensor, found {kind}; give {fix}")


def described(tensor: Tensor) -> str:
    """Return the dtype and the shape of a tensor, for an error."""
    return f"{tensor.dtype} {list(cast('Sequence[int]', tensor.shape))}"
