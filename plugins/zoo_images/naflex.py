"""NaFlex preprocessor: images become patches and keep their aspect ratio.

With the engine `pil`, evaluation gives the very bits that timm's NaFlex transform gives for RGB images. That is why the
size is found by bisection, and why a tiny image grows a hundredfold at most: scores were measured so. Training crops
are timm's too, drawn from torch's generator instead of Python's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from zoo_core.images import ImageLike, Preprocessor, check_pixels
from zoo_core.images.patches import pad_patches, patchify
from zoo_images.config import NaFlexImageConfig
from zoo_images.limits import check_raw_size
from zoo_images.random_crop import crop_box

if TYPE_CHECKING:
    from zoo_images.engines import Engine

__all__ = ["NaFlexPreprocessor", "fitted_size"]

_MAX_SCALE = 100.0
_STEP = 1e-5
"""Bisection ends when the scale is known to this."""


class NaFlexPreprocessor(Preprocessor):
    """Turns an image into its patches; picklable.

    With `train`, chance comes from a generator that is handed in, or else from torch's global one, so that
    `torch.manual_seed` decides it.

    Args:
        config: patches, colours and augmentation.
        image_size: height and width of the tower's images; each image gets as many patches as those have, where the
            config has no number.
        train: crop at random and augment instead of showing the whole image.
    """

    takes_bytes = True

    def __init__(self, config: NaFlexImageConfig, *, image_size: tuple[int, int], train: bool = False) -> None:
        self.config = config
        self.image_size = image_size
        self.train = train
        grid = (side // patch for side, patch in zip(image_size, config.patch_size, strict=True))
        self.image_seq_len = config.image_seq_len or max(1, math.prod(grid))

    def __call__(
        self, image: ImageLike | torch.Tensor, *, generator: torch.Generator | None = None
    ) -> dict[str, torch.Tensor]:
        """Return the patches of an image, or of raw pixels (uint8 `[3, H, W]`).

        Returns:
            `patches` float32 `[N, P * P * 3]`, `patch_coord` and `patch_valid`.

        Raises:
            ImageFileError: the file cannot be read as an image; its path and the reason are named.
            InputError: it is no image, or an unusable one.
        """
        if isinstance(image, torch.Tensor):
            check_pixels(image)
            return self.prepare(image[None], generator=generator)[0]
        decoded = self._engine.open(image, self.max_pixels)
        pixels = self._augmented(decoded, generator) if self.train else self._pixels(decoded)
        return patchify(pixels, self.config.patch_size)

    def prepare(self, pixels: torch.Tensor, *, generator: torch.Generator | None = None) -> Any:
        """Return the patches of each of raw pixels `[B, 3, H, W]`, as `ImagePreprocessor.prepare` has it."""
        if not self._engine.takes_raw:
            return super().prepare(pixels, generator=generator)
        check_raw_size(pixels, self.max_pixels)
        images = [self._augmented(image, generator) for image in pixels] if self.train else self._pixels(pixels)
        return [patchify(image.to(pixels.device), self.config.patch_size) for image in images]

    def _augmented(self, image: Any, generator: torch.Generator | None) -> torch.Tensor:
        """Return a random part of an image in other colours, as pixels."""
        options = self.config.train
        height, width = self._engine.size(image)
        aspect = width / height
        ratio = options.ratio[0] * aspect, options.ratio[1] * aspect
        top, left, *crop = crop_box((height, width), options.scale, ratio, generator=generator)
        part = self._fitted(self._engine.crop(image, top, left, (crop[0], crop[1])))
        return self._engine.pixels(self._engine.recolour(part, options, generator))

    def _pixels(self, image: Any) -> torch.Tensor:
        """Return the pixels of an image, or of each of a batch."""
        return self._engine.pixels(self._fitted(image))

    def _fitted(self, image: Any) -> Any:
        """Return an image, or each of a batch, at the size at which it has as many patches as it may have."""
        size = fitted_size(self._engine.size(image), self.config.patch_size, self.image_seq_len)
        return self._engine.resample(image, size)

    @cached_property
    def _engine(self) -> Engine:
        from zoo_images.engines import engine_of  # noqa: PLC0415 - Pillow

        return engine_of(self.config)

    def collate(self, prepared: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Return images as a patch batch (see `zoo_core.images.patches`), padded to the largest of them."""
        if prepared:
            return pad_patches(prepared)
        blank = pad_patches([patchify(torch.empty(3, *self.config.patch_size), self.config.patch_size)])
        return {key: value[:0] for key, value in blank.items()}

    def __repr__(self) -> str:
        return f"NaFlexPreprocessor({self.config!r}, image_size={self.image_size}, train={self.train})"


def fitted_size(source: tuple[int, int], patch_size: tuple[int, int], image_seq_len: int) -> tuple[int, int]:
    """Return the height and width in whole patches of the largest image that has at most `image_seq_len` of them.

    Args:
        source: height and width of the image.
        patch_size: height and width of a patch.
        image_seq_len: greatest number of patches.
    """

    def grid(scale: float) -> tuple[int, int]:
        rows, columns = (max(1, math.ceil(side * scale / p)) for side, p in zip(source, patch_size, strict=True))
        return rows, columns

    low, high = _STEP / 10, _MAX_SCALE
    while high - low >= _STEP:
        middle = (low + high) / 2
        if math.prod(grid(middle)) <= image_seq_len:
            low = middle
        else:
            high = middle
    rows, columns = grid(low)
    return rows * patch_size[0], columns * patch_size[1]
