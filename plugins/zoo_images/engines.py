"""What turns a decoded picture into pixels: Pillow, bit for bit as published scores were measured, or torch, faster.

Torch shrinks the 8-bit pixels with its own antialiased kernels, which round as Pillow's do: few pixels of a photograph
differ from Pillow's, by 1/255 and hardly ever by 2/255. (Tiny pictures of white noise are the worst: 9/255.) Where a
side of a picture grows, the overshoot of the filter makes more of the rounding; such pictures are small, and Pillow
resamples them in either engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from zoo_core.images import ImageLike
from zoo_images.config import ColourConfig
from zoo_images.reading import open_image, open_pixels

__all__ = ["Engine", "engine_of"]

_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class Engine(ABC):
    """Resamples, crops, pads and normalises. A sheet is what it works on; sizes are height and width."""

    def __init__(self, config: ColourConfig) -> None:
        self.interpolation, self.exif = config.interpolation, config.exif
        self.mean = torch.tensor(config.mean, dtype=torch.float32).view(3, 1, 1)
        self.std = torch.tensor(config.std, dtype=torch.float32).view(3, 1, 1)

    @abstractmethod
    def open(self, source: ImageLike, draft: tuple[int, int] | None = None) -> Any:
        """Return the sheet of what `open_image` takes; it says what is refused, and what a draft is."""

    @abstractmethod
    def size(self, sheet: Any) -> tuple[int, int]:
        """Return the size of a sheet."""

    @abstractmethod
    def resample(self, sheet: Any, size: tuple[int, int]) -> Any:
        """Return a sheet at a size."""

    @abstractmethod
    def crop(self, sheet: Any, top: int, left: int, size: tuple[int, int]) -> Any:
        """Return a part of a sheet."""

    @abstractmethod
    def pad(self, sheet: Any, size: tuple[int, int], grey: int) -> Any:
        """Return a grey sheet of a size with `sheet` in its middle."""

    @abstractmethod
    def picture(self, sheet: Any) -> Image.Image:
        """Return a sheet as a picture."""

    @abstractmethod
    def sheet(self, picture: Image.Image) -> Any:
        """Return an RGB picture as a sheet."""

    @abstractmethod
    def pixels(self, sheet: Any) -> torch.Tensor:
        """Return a sheet as normalised float32 pixels `[3, H, W]`."""


class PilEngine(Engine):
    """Sheets are Pillow's pictures."""

    def open(self, source: ImageLike, draft: tuple[int, int] | None = None) -> Image.Image:
        """Return the picture."""
        return open_image(source, exif=self.exif, draft=draft)

    def size(self, sheet: Image.Image) -> tuple[int, int]:
        """Return the size of a picture."""
        return sheet.height, sheet.width

    def resample(self, sheet: Image.Image, size: tuple[int, int]) -> Image.Image:
        """Return the picture at a size."""
        return _resized(sheet, size, self.interpolation)

    def crop(self, sheet: Image.Image, top: int, left: int, size: tuple[int, int]) -> Image.Image:
        """Return a part of a picture."""
        return sheet.crop((left, top, left + size[1], top + size[0]))

    def pad(self, sheet: Image.Image, size: tuple[int, int], grey: int) -> Image.Image:
        """Return a grey picture with `sheet` in its middle."""
        height, width = size
        frame = Image.new("RGB", (width, height), (grey,) * 3)
        frame.paste(sheet, ((width - sheet.width) // 2, (height - sheet.height) // 2))
        return frame

    def picture(self, sheet: Image.Image) -> Image.Image:
        """Return the picture itself."""
        return sheet

    def sheet(self, picture: Image.Image) -> Image.Image:
        """Return the picture itself."""
        return picture

    def pixels(self, sheet: Image.Image) -> torch.Tensor:
        """Return the pixels of a picture, computed in torchvision's order of operations."""
        pixels = torch.from_numpy(np.array(sheet)).permute(2, 0, 1).contiguous()
        return pixels.to(torch.float32).div_(255).sub_(self.mean).div_(self.std)


class TorchEngine(Engine):
    """Sheets are uint8 tensors `[3, H, W]`, channels last in memory."""

    def __init__(self, config: ColourConfig) -> None:
        super().__init__(config)
        self._scale, self._shift = 1 / (255 * self.std), -self.mean / self.std

    def open(self, source: ImageLike, draft: tuple[int, int] | None = None) -> torch.Tensor:
        """Return the pixels of the picture."""
        return open_pixels(source, exif=self.exif, draft=draft)

    def size(self, sheet: torch.Tensor) -> tuple[int, int]:
        """Return the size of a tensor."""
        return sheet.shape[1], sheet.shape[2]

    def resample(self, sheet: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Return the tensor at a size."""
        if self.size(sheet) == size:
            return sheet
        if sheet.shape[1] < size[0] or sheet.shape[2] < size[1]:
            return self.sheet(_resized(self.picture(sheet), size, self.interpolation))
        batch = sheet.as_strided((1, *sheet.shape), (sheet.numel(), *sheet.stride()))  # [None] hides channels last
        return F.interpolate(batch, size=size, mode=self.interpolation, antialias=True)[0]

    def crop(self, sheet: torch.Tensor, top: int, left: int, size: tuple[int, int]) -> torch.Tensor:
        """Return a part of a tensor."""
        return sheet[:, top : top + size[0], left : left + size[1]]

    def pad(self, sheet: torch.Tensor, size: tuple[int, int], grey: int) -> torch.Tensor:
        """Return a grey tensor with `sheet` in its middle."""
        top, left = ((side - own) // 2 for side, own in zip(size, sheet.shape[1:], strict=True))
        frame = sheet.new_full((3, *size), grey)
        frame[:, top : top + sheet.shape[1], left : left + sheet.shape[2]] = sheet
        return frame

    def picture(self, sheet: torch.Tensor) -> Image.Image:
        """Return the picture of a tensor."""
        return Image.fromarray(sheet.permute(1, 2, 0).contiguous().numpy())

    def sheet(self, picture: Image.Image) -> torch.Tensor:
        """Return the tensor of a picture."""
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)

    def pixels(self, sheet: torch.Tensor) -> torch.Tensor:
        """Return the pixels of a tensor, scaled and shifted."""
        pixels = sheet.to(torch.float32, memory_format=torch.contiguous_format)
        return pixels.mul_(self._scale).add_(self._shift)  # twice as fast as torch.addcmul


def _resized(picture: Image.Image, size: tuple[int, int], interpolation: str) -> Image.Image:
    height, width = size
    if picture.size == (width, height):
        return picture
    return picture.resize((width, height), _RESAMPLING[interpolation])


def engine_of(config: ColourConfig) -> Engine:
    """Return the engine that a config names."""
    return PilEngine(config) if config.engine == "pil" else TorchEngine(config)
