"""Image preprocessor with the arithmetic of torchvision's PIL transforms.

With the engine `pil`, evaluation gives the very bits that open_clip's `image_transform` gives, and
training gives its crops from the same seed; with `torch` few pixels differ from those, by 1/255. That is why sizes
are truncated in one place and rounded in another, and why the logarithm of a ratio is taken in float32: published
scores were measured so.

Differences, on purpose: with `torch`, palettes and bits become colours before they are resized, where Pillow takes the
nearest pixel; grey of 16 bits is scaled, not clipped; and `interpolation` holds for frames that are not square and for
training too.

Pillow and the engine are imported with the first image, of which a model that encodes text alone never sees one.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from zoo_core.images import ImageLike, Preprocessor, check_pixels
from zoo_images.config import ImageConfig
from zoo_images.limits import RAISE, check_raw_size, refusal
from zoo_images.random_crop import crop_box

if TYPE_CHECKING:
    from zoo_images.engines import Engine

__all__ = ["ImagePreprocessor", "resized_size"]


class ImagePreprocessor(Preprocessor):
    """Turns an image into a normalised float32 tensor `[3, H, W]`, raw pixels on their device; picklable.

    With `train`, chance comes from a generator that is handed in, or else from torch's global one, so that
    `torch.manual_seed` decides it.

    Args:
        config: sizes, colours and augmentation.
        image_size: height and width of the result.
        train: crop at random and augment instead of fitting the whole image.
    """

    takes_bytes = True

    def __init__(self, config: ImageConfig, *, image_size: tuple[int, int], train: bool = False) -> None:
        self.config = config
        self.image_size = image_size
        self.train = train

    def __call__(self, image: ImageLike | torch.Tensor, *, generator: torch.Generator | None = None) -> torch.Tensor:
        """Return an image, or raw pixels (uint8 `[3, H, W]`), as a float32 tensor `[3, H, W]`.

        Raises:
            ImageFileError: the file cannot be read as an image; its path and the reason are named.
            InputError: it is no image, or an unusable one.
        """
        if isinstance(image, torch.Tensor):
            check_pixels(image)
            return self.prepare(image[None], generator=generator)[0]
        draft = None if self.train or not self.config.draft else self.image_size
        decoded = self._engine.open(image, self.max_pixels, draft)
        prepared = self._augmented(decoded, generator) if self.train else self._fitted(decoded, image)
        return self._engine.pixels(prepared)

    def prepare(self, pixels: torch.Tensor, *, generator: torch.Generator | None = None) -> Any:
        """Return raw pixels as float32 tensors `[3, H, W]` on their device, one `[B, 3, H, W]` of all but in training.

        The engine `torch` works on their device, but for a change of colours in training; `pil` works on the CPU.
        """
        if not self._engine.takes_raw:
            return super().prepare(pixels, generator=generator)
        check_raw_size(pixels, self.max_pixels)
        if self.train:
            return [self._engine.pixels(self._augmented(image, generator)).to(pixels.device) for image in pixels]
        return self._engine.pixels(self._fitted(pixels, pixels))

    def __repr__(self) -> str:
        return f"ImagePreprocessor({self.config!r}, image_size={self.image_size}, train={self.train})"

    @cached_property
    def _engine(self) -> Engine:
        from zoo_images.engines import engine_of  # noqa: PLC0415 - Pillow

        return engine_of(self.config)

    def _fitted(self, image: Any, source: object) -> Any:
        """Resize the whole image, then pad or crop it around its centre."""
        height, width = self.image_size
        before = self._engine.size(image)
        size = resized_size(before, self.image_size, self.config.resize_mode)
        if math.prod(size) > max(self.max_pixels, height * width):
            raise refusal(
                source,
                f"its {before[1]} x {before[0]} pixels would be resized to {size[1]} x {size[0]}, "
                f"more than the limit of {self.max_pixels:,}; crop it first, use resize_mode 'longest', or {RAISE}",
            )
        image = self._engine.resample(image, size)
        if self.config.resize_mode == "longest":
            return self._engine.pad(image, self.image_size, self.config.fill)
        top, left = round((size[0] - height) / 2), round((size[1] - width) / 2)
        return self._engine.crop(image, top, left, self.image_size)

    def _augmented(self, image: Any, generator: torch.Generator | None) -> Any:
        options = self.config.train
        top, left, *size = crop_box(self._engine.size(image), options.scale, options.ratio, generator=generator)
        crop = self._engine.crop(image, top, left, (size[0], size[1]))
        return self._engine.recolour(self._engine.resample(crop, self.image_size), options, generator)


def resized_size(source: tuple[int, int], frame: tuple[int, int], mode: str) -> tuple[int, int]:
    """Return the height and width to which an image is resized before it is cropped or padded to `frame`.

    Args:
        source: height and width of the image.
        frame: height and width of the result.
        mode: `resize_mode` of the config.
    """
    (height, width), (frame_height, frame_width) = source, frame
    if mode == "squash":
        return frame
    if mode == "shortest" and frame_height == frame_width:
        short = min(height, width)  # torchvision truncates the longer side here
        return int(frame_height * height / short), int(frame_height * width / short)
    ratios = height / frame_height, width / frame_width
    ratio = max(ratios) if mode == "longest" else min(ratios)
    return max(1, round(height / ratio)), max(1, round(width / ratio))
