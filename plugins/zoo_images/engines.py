"""What turns a decoded picture into pixels: Pillow, bit for bit as published scores were measured, or torch, faster.

Torch shrinks the 8-bit pixels with its own antialiased kernels, which resample the width, round, and resample the
height, as Pillow does: one pixel of some hundreds is 1/255 from Pillow's, hardly any 2/255, in white noise too.
Pictures whose sides grow are small, and Pillow resamples them in either engine.

Raw pixels that are tensors already stay on their device. On the CPU they become the bits that the same picture becomes.
GPUs have no kernels for 8-bit pixels, so there the sides are resampled one after the other in float32 and rounded in
between; the result is as near to Pillow's. Both sides at once, as torchvision does it there, give other values in every
seventh pixel, and cut no overshoot in between.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from zoo_core.images import MAX_PIXELS, ImageLike
from zoo_images.config import ColourConfig
from zoo_images.reading import Opening, as_rgb, open_image, open_pixels

__all__ = ["Engine", "PilEngine", "TorchEngine", "engine_of"]

_ON_DEVICE = ("cuda", "xpu", "meta")
"""Devices that have the antialiased kernels; others have the CPU resample."""

_STEEPEST = 64
"""Kernels of GPUs have shared memory for the window of a filter up to about this ratio of the sides."""

_AT_ONCE = 2**26
"""Greatest number of float32 values that a batch takes on its way: 256 MiB."""

_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

_WEIGHTED = {"LA": "La", "RGBA": "RGBa"}
"""The modes in which each colour is multiplied by its opacity, as Pillow resamples those with an alpha channel."""


class Engine(ABC):
    """Resamples, crops, pads and normalises. A sheet is what it works on; sizes are height and width.

    Attributes:
        takes_raw: sheets may be raw pixels `[3, H, W]` or `[B, 3, H, W]` on any device, and stay there.
    """

    takes_raw = False

    def __init__(self, config: ColourConfig) -> None:
        self.config, self.interpolation = config, config.interpolation
        self.mean = torch.tensor(config.mean, dtype=torch.float32).view(3, 1, 1)
        self.std = torch.tensor(config.std, dtype=torch.float32).view(3, 1, 1)

    def how(self, max_pixels: int, draft: tuple[int, int] | None) -> Opening:
        """Return how pictures are opened."""
        return Opening(self.config.exif, draft, self.config.alpha, max_pixels)

    @abstractmethod
    def open(self, source: ImageLike, max_pixels: int = MAX_PIXELS, draft: tuple[int, int] | None = None) -> Any:
        """Return the sheet of what `open_image` takes, which may have an alpha channel until it is resampled."""

    @abstractmethod
    def size(self, sheet: Any) -> tuple[int, int]:
        """Return the size of a sheet."""

    @abstractmethod
    def resample(self, sheet: Any, size: tuple[int, int]) -> Any:
        """Return a sheet at a size, in red, green and blue."""

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

    def open(
        self, source: ImageLike, max_pixels: int = MAX_PIXELS, draft: tuple[int, int] | None = None
    ) -> Image.Image:
        """Return the picture."""
        return open_image(source, self.how(max_pixels, draft))

    def size(self, sheet: Image.Image) -> tuple[int, int]:
        """Return the size of a picture."""
        return sheet.height, sheet.width

    def resample(self, sheet: Image.Image, size: tuple[int, int]) -> Image.Image:
        """Return the picture at a size, as RGB."""
        return as_rgb(_resized(sheet, size, self.interpolation))

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
    """Sheets are uint8 tensors `[3, H, W]`, channels last in memory, or raw pixels `[3, H, W]` or `[B, 3, H, W]`.

    Those with an alpha channel, `[4, H, W]`, are Pillow's to resample.
    """

    takes_raw = True

    def __init__(self, config: ColourConfig) -> None:
        super().__init__(config)
        self._scale, self._shift = 1 / (255 * self.std), -self.mean / self.std

    def open(
        self, source: ImageLike, max_pixels: int = MAX_PIXELS, draft: tuple[int, int] | None = None
    ) -> torch.Tensor:
        """Return the pixels of the picture."""
        return open_pixels(source, self.how(max_pixels, draft))

    def size(self, sheet: torch.Tensor) -> tuple[int, int]:
        """Return the size of a tensor."""
        return sheet.shape[-2], sheet.shape[-1]

    def resample(self, sheet: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Return the tensor at a size, on its device."""
        if sheet.ndim == 3 and len(sheet) == 4:
            return self.sheet(as_rgb(_resized(self.picture(sheet), size, self.interpolation)))
        if self.size(sheet) == size or not len(sheet):
            return sheet.reshape(*sheet.shape[:-2], *size)
        if sheet.ndim == 4:
            return self._resampled(sheet, size)
        batch = sheet.as_strided((1, *sheet.shape), (sheet.numel(), *sheet.stride()))  # [None] hides channels last
        return self._resampled(batch, size)[0]

    def _resampled(self, batch: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        height, width = self.size(batch)
        if batch.device.type == "cpu":
            grows = height < size[0] or width < size[1]
            if grows or size == (1, 1):  # the kernel fails on a single pixel unless channels are last in memory
                pictures = [_resized(self.picture(one), size, self.interpolation) for one in batch]
                return torch.stack([self.sheet(picture) for picture in pictures])
            return self._scaled(batch, size)
        if batch.device.type not in _ON_DEVICE or height > _STEEPEST * size[0] or width > _STEEPEST * size[1]:
            return self._resampled(batch.cpu(), size).to(batch.device)
        parts = batch.split(max(1, _AT_ONCE // (3 * height * width)))
        return torch.cat([self.resample_in_float(part, size) for part in parts])

    def resample_in_float(self, pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Return uint8 pictures `[B, 3, H, W]` at a size, by arithmetic that GPUs have."""
        sheet = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        for step in ((pixels.shape[2], size[1]), size):
            if self.size(sheet) != step:
                sheet = self._scaled(sheet, step).add_(0.5).floor_().clamp_(0, 255)
        return sheet.to(torch.uint8)

    def _scaled(self, sheet: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return F.interpolate(sheet, size=size, mode=self.interpolation, antialias=True)

    def crop(self, sheet: torch.Tensor, top: int, left: int, size: tuple[int, int]) -> torch.Tensor:
        """Return a part of a tensor."""
        return sheet[..., top : top + size[0], left : left + size[1]]

    def pad(self, sheet: torch.Tensor, size: tuple[int, int], grey: int) -> torch.Tensor:
        """Return a grey tensor with `sheet` in its middle."""
        height, width = self.size(sheet)
        top, left = (size[0] - height) // 2, (size[1] - width) // 2
        return F.pad(sheet, (left, size[1] - width - left, top, size[0] - height - top), value=grey)

    def picture(self, sheet: torch.Tensor) -> Image.Image:
        """Return the picture of a tensor `[3, H, W]`, or of one with an alpha channel."""
        return Image.fromarray(sheet.permute(1, 2, 0).contiguous().cpu().numpy())

    def sheet(self, picture: Image.Image) -> torch.Tensor:
        """Return the tensor of a picture."""
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)

    def pixels(self, sheet: torch.Tensor) -> torch.Tensor:
        """Return the pixels of a tensor, scaled and shifted."""
        pixels = sheet.to(torch.float32, memory_format=torch.contiguous_format)
        scale, shift = self._scale.to(sheet.device), self._shift.to(sheet.device)
        return pixels.mul_(scale).add_(shift)  # twice as fast as torch.addcmul


def _resized(picture: Image.Image, size: tuple[int, int], interpolation: str) -> Image.Image:
    """Return a picture at a size, the width resampled first.

    So does Pillow before 13 what this asks of it in two steps. Since then it begins with the height of pictures that
    lose more than twice as much of it as of their width, and their pixels are no longer those of published scores.
    """
    height, width = size
    mode = picture.mode
    if mode in _WEIGHTED and picture.size != (width, height):
        picture = picture.convert(_WEIGHTED[mode])  # once, not in each of the steps
    for step in ((width, picture.height), (width, height)):
        if picture.size != step:
            picture = picture.resize(step, _RESAMPLING[interpolation])
    return picture if picture.mode == mode else picture.convert(mode)


def engine_of(config: ColourConfig) -> Engine:
    """Return the engine that a config names."""
    return PilEngine(config) if config.engine == "pil" else TorchEngine(config)
