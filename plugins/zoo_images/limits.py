"""Limits on the size of images."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from zoo_core.errors import ImageFileError, InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MAX_ASPECT", "RAISE", "check_raw_size", "check_size", "refusal"]

MAX_ASPECT = 200
"""More elongated images are refused: resizing their shorter side would make the longer one huge."""

RAISE = "set max_pixels of the preprocessing (--max-pixels)"
"""What lets a larger image pass."""


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse images that have no pixels or too many, or are too elongated, with an `InputError`."""
    size = f"{width} x {height} pixels"
    if width < 1 or height < 1:
        raise InputError(f"has no pixels ({size})")
    if width * height > max_pixels:
        raise InputError(f"has {size}, more than the limit of {max_pixels:,}; shrink it first, or {RAISE}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InputError(f"has {size}, more elongated than {MAX_ASPECT}:1; crop it first")


def refusal(source: object, reason: str) -> InputError:
    """Return the error that says why `source` is refused, with the file that it is or was opened from."""
    path = os.fspath(source) if isinstance(source, str | os.PathLike) else getattr(source, "filename", "")
    return ImageFileError(f"{path}: {reason}") if path else InputError(f"image: {reason}")


def check_raw_size(pixels: Tensor, max_pixels: int) -> None:
    """Hold raw pixels `[B, 3, H, W]` to the limits of files.

    Raises:
        InputError: they have no pixels or too many, or are too elongated.
    """
    try:
        check_size(pixels.shape[3], pixels.shape[2], max_pixels)
    except InputError as error:
        raise refusal(pixels, str(error)) from None
