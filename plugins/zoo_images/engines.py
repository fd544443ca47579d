"""Engines that resample images: Pillow, or torch's faster kernels.

Pillow gives the very bits that published scores were measured with. Torch shrinks the 8-bit pixels with its own
antialiased kernels, which resample the width, round, and resample the height, as Pillow does: one pixel of some
hundreds is 1/255 from Pillow's, hardly any 2/255, in white noise too. Images whose sides grow are small, and Pillow
resamples them in either engine.

Raw pixels that are tensors already stay on their device. On the CPU they become the bits that the same image file
becomes. GPUs have no kernels for 8-bit pixels, so there the sides are resampled one after the other in float32 and
rounded in between; the result is as near to Pillow's. Both sides at once, as torchvision does it there, give other
values in every seventh pixel, and cut no overshoot in between.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from zoo_core.images import MAX_PIXELS, ImageLike
from zoo_images.color_jitter import happens, jitter
from zoo_images.config import AugmentationConfig, ColourConfig
from zoo_images.reading import OpenOptions, as_rgb, open_image, open_pixels

__all__ = ["Engine", "PilEngine", "TorchEngine", "engine_of"]

_ON_DEVICE = ("cuda", "xpu", "meta")
"""Devices that have the antialiased kernels; others have the CPU resample."""

_MAX_RATIO = 64
"""Kernels of GPUs have shared memory for the window of a filter up to about this ratio of the sides."""

_MAX_VALUES = 2**26
"""Greatest number of float32 values that a batch takes on its way: 256 MiB."""

_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

_WEIGHTED = {"LA": "La", "RGBA": "RGBa"}
"""The modes in which each colour is multiplied by its opacity, as Pillow resamples those with an alpha channel."""


class Engine(ABC):
    """Resamples, crops, pads and normalises images in a form of its own: Pillow's, or tensors.

    Sizes are height and width.

    Attributes:
        takes_raw: images may be raw pixels `[3, H, W]` or `[B, 3, H, W]` on any device, and stay there.
    """

    takes_raw = False

    def __init__(self, config: ColourConfig) -> None:
        self.config, self.interpolation = config, config.interpolation
        self.mean = torch.tensor(config.mean, dtype=torch.float32).view(3, 1, 1)
        self.std = torch.tensor(config.std, dtype=torch.float32).view(3, 1, 1)

    def open_options(self, max_pixels: int, draft: tuple[int, int] | None) -> OpenOptions:
        """Return how image files are opened."""
        return OpenOptions(self.config.exif, draft, self.config.alpha, max_pixels)

    @abstractmethod
    def open(self, source: ImageLike, max_pixels: int = MAX_PIXELS, draft: tuple[int, int] | None = None) -> Any:
        """Return what `open_image` takes in the form of this engine.

        It may have an alpha channel until it is resampled.
        """

    @abstractmethod
    def size(self, image: Any) -> tuple[int, int]:
        """Return the size of an image."""

    @abstractmethod
    def resample(self, image: Any, size: tuple[int, int]) -> Any:
        """Return an image at a size, in red, green and blue."""

    @abstractmethod
    def crop(self, image: Any, top: int, left: int, size: tuple[int, int]) -> Any:
        """Return a part of an image."""

    @abstractmethod
    def pad(self, image: Any, size: tuple[int, int], grey: int) -> Any:
        """Return a grey image of a size with `image` in its middle."""

    @abstractmethod
    def to_pil(self, image: Any) -> Image.Image:
        """Return an image in Pillow's form."""

    @abstractmethod
    def from_pil(self, image: Image.Image) -> Any:
        """Return an RGB image of Pillow in the form of this engine."""

    @abstractmethod
    def pixels(self, image: Any) -> torch.Tensor:
        """Return an image as normalised float32 pixels `[3, H, W]`."""

    def recolour(self, image: Any, options: AugmentationConfig, generator: torch.Generator | None) -> Any:
        """Change the colours of a training image at random."""
        jitters = options.color_jitter is not None and happens(options.color_jitter_probability, generator)
        recoloured = self.to_pil(image) if jitters else None
        if recoloured is not None and options.color_jitter is not None:
            recoloured = jitter(recoloured, *options.color_jitter, generator=generator)
        if happens(options.grey_probability, generator):
            recoloured = (recoloured or self.to_pil(image)).convert("L").convert("RGB")
        return image if recoloured is None else self.from_pil(recoloured)


class PilEngine(Engine):
    """Works on Pillow's images."""

    def open(
        self, source: ImageLike, max_pixels: int = MAX_PIXELS, draft: tuple[int, int] | None = None
    ) -> Image.Image:
        """Return the image."""
        return open_image(source, self.open_options(max_pixels, draft))

    def size(self, image: Image.Image) -> tuple[int, int]:
        """Return the size of an image."""
        return image.height, image.width

    def resample(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """Return the image at a size, as RGB."""
        return as_rgb(_resized(image, size, self.interpolation))

    def crop(self, image: Image.Image, top: int, left: int, size: tuple[int, int]) -> Image.Image:
        """Return a part of an image."""
        return image.crop((left, top, left + size[1], top + size[0]))

    def pad(self, image: Image.Image, size: tuple[int, int], grey: int) -> Image.Image:
        """Return a grey image with `image` in its middle."""
        height, width = size
        frame = Image.new("RGB", (width, height), (grey,) * 3)
        frame.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
        return frame

    def to_pil(self, image: Image.Image) -> Image.Image:
        """Return the image itself."""
        return image

    def from_pil(self, image: Image.Image) -> Image.Image:
        """Return the image itself."""
        return image

    def pixels(self, image: Image.Image) -> torch.Tensor:
        """Return the pixels of an image, computed in torchvision's order of operations."""
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return pixels.to(torch.float32).div_(255).sub_(self.mean).div_(self.std)


class TorchEngine(Engine):
    """Works on uint8 tensors `[3, H, W]`, channels last in memory, or raw pixels `[3, H, W]` or `[B, 3, H, W]`.

    Those with an alpha channel, `[4, H, W]`, are Pillow's to resample.
    """

    takes_raw = True

    def __init__(self, config: ColourConfig) -> None:
        super().__init__(config)
        self._scale, self._shift = 1 / (255 * self.std), -self.mean / self.std

    def open(
        self, source: ImageLike, max_pixels: int = MAX_PIXELS, draft: tuple[int, int] | None = None
    ) -> torch.Tensor:
        """Return the pixels of the image."""
        return open_pixels(source, self.open_options(max_pixels, draft))

    def size(self, image: torch.Tensor) -> tuple[int, int]:
        """Return the size of a tensor."""
        return image.shape[-2], image.shape[-1]

    def resample(self, image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Return the tensor at a size, on its device."""
        if image.ndim == 3 and len(image) == 4:
            return self.from_pil(as_rgb(_resized(self.to_pil(image), size, self.interpolation)))
        if self.size(image) == size or not len(image):
            return image.reshape(*image.shape[:-2], *size)
        if image.ndim == 4:
            return self._resampled(image, size)
        batch = image.as_strided((1, *image.shape), (image.numel(), *image.stride()))  # [None] hides channels last
        return self._resampled(batch, size)[0]

    def _resampled(self, batch: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        height, width = self.size(batch)
        if batch.device.type == "cpu":
            grows = height < size[0] or width < size[1]
            if grows or size == (1, 1):  # the kernel fails on a single pixel unless channels are last in memory
                images = [_resized(self.to_pil(image), size, self.interpolation) for image in batch]
                return torch.stack([self.from_pil(image) for image in images])
            return self._scaled(batch, size)
        if batch.device.type not in _ON_DEVICE or height > _MAX_RATIO * size[0] or width > _MAX_RATIO * size[1]:
            return self._resampled(batch.cpu(), size).to(batch.device)
        parts = batch.split(max(1, _MAX_VALUES // (3 * height * width)))
        return torch.cat([self.resample_in_float(part, size) for part in parts])

    def resample_in_float(self, pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Return uint8 images `[B, 3, H, W]` at a size, by arithmetic that GPUs have."""
        image = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        for step in ((pixels.shape[2], size[1]), size):
            if self.size(image) != step:
                image = self._scaled(image, step).add_(0.5).floor_().clamp_(0, 255)
        return image.to(torch.uint8)

    def _scaled(self, image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return F.interpolate(image, size=size, mode=self.interpolation, antialias=True)

    def crop(self, image: torch.Tensor, top: int, left: int, size: tuple[int, int]) -> torch.Tensor:
        """Return a part of a tensor."""
        return image[..., top : top + size[0], left : left + size[1]]

    def pad(self, image: torch.Tensor, size: tuple[int, int], grey: int) -> torch.Tensor:
        """Return a grey tensor with `image` in its middle."""
        height, width = self.size(image)
        top, left = (size[0] - height) // 2, (size[1] - width) // 2
        return F.pad(image, (left, size[1] - width - left, top, size[0] - height - top), value=grey)

    def to_pil(self, image: torch.Tensor) -> Image.Image:
        """Return the image of a tensor `[3, H, W]`, or of one with an alpha channel."""
        return Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())

    def from_pil(self, image: Image.Image) -> torch.Tensor:
        """Return the tensor of an image."""
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    def pixels(self, image: torch.Tensor) -> torch.Tensor:
        """Return the pixels of a tensor, scaled and shifted."""
        pixels = image.to(torch.float32, memory_format=torch.contiguous_format)
        scale, shift = self._scale.to(image.device), self._shift.to(image.device)
        return pixels.mul_(scale).add_(shift)  # twice as fast as torch.addcmul


def _resized(image: Image.Image, size: tuple[int, int], interpolation: str) -> Image.Image:
    """Return an image at a size, the width resampled first.

    So does Pillow before 13 what this asks of it in two steps. Since then it begins with the height of images that
    lose more than twice as much of it as of their width, and their pixels are no longer those of published scores.
    """
    height, width = size
    mode = image.mode
    if mode in _WEIGHTED and image.size != (width, height):
        image = image.convert(_WEIGHTED[mode])  # once, not in each of the steps
    for step in ((width, image.height), (width, height)):
        if image.size != step:
            image = image.resize(step, _RESAMPLING[interpolation])
    return image if image.mode == mode else image.convert(mode)


def engine_of(config: ColourConfig) -> Engine:
    """Return the engine that a config names."""
    return PilEngine(config) if config.engine == "pil" else TorchEngine(config)
