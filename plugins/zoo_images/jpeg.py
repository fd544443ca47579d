"""JPEG decoding into tensors by torchvision's libjpeg-turbo.

Pillow gives the same bits, but takes about a third longer: it lays rows out in pixels of four bytes, of which numpy
then gathers three. Importing torchvision takes seconds, so its extension is loaded without it. torchvision has called
its decoders deprecated since 0.29; where they are gone, or decode to other bits than Pillow, Pillow is what is left. Of
damage that libjpeg mends both give the same bits, but here libjpeg says so on stderr.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

__all__ = ["decode"]

_RGB = 3
"""torchvision's number of the mode."""
_SUFFIXES = (".so", ".pyd", ".dylib")

Decode = Callable[[bytes], torch.Tensor]


def decode(data: bytes, header: Image.Image) -> torch.Tensor | None:
    """Return the uint8 pixels `[3, H, W]` of a colour or grey JPEG file, channels last in memory.

    None says that Pillow has to decode it, or to say what is wrong with it.

    Args:
        data: the whole file.
        header: what Pillow read of it.
    """
    decoder = _decoder()
    if decoder is None or header.mode not in ("RGB", "L"):
        return None
    try:
        pixels = decoder(data)
    except RuntimeError:
        return None
    return pixels if pixels.shape == (3, header.height, header.width) else None


@cache
def _decoder() -> Decode | None:
    """Return torchvision's decoder if it is there and its bits are Pillow's."""
    try:
        operator = _operator()

        def decode(data: bytes) -> torch.Tensor:
            return operator(torch.frombuffer(bytearray(data), dtype=torch.uint8), _RGB, False)

        return decode if _agrees(decode) else None
    except (AttributeError, ImportError, OSError, RuntimeError, ValueError):  # missing, or made for another torch
        return None


def _operator() -> Any:
    if not hasattr(torch.ops.image, "decode_jpeg"):
        spec = find_spec("torchvision")
        folders = spec.submodule_search_locations or () if spec else ()
        for library in (path for folder in folders for path in Path(folder).glob("image*")):
            if library.suffix in _SUFFIXES:
                torch.ops.load_library(library)
    return torch.ops.image.decode_jpeg.default


def _agrees(decode: Decode) -> bool:
    """Compare a few images with Pillow's: libraries other than libjpeg-turbo round differently."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((53, 39), Image.Resampling.BICUBIC)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        file = io.BytesIO()
        image.save(file, "JPEG", subsampling=subsampling)
        expected = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
        if not torch.equal(decode(file.getvalue()), expected):
            return False
    return True
