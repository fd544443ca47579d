"""Base of preprocessors: from images to tensors of a vision tower.

Images from a video decoder or a data loader are tensors already. Their dtype tells raw pixels, always uint8, from
preprocessed images, always floating point.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, Union, cast

import torch
from torch import Tensor

from zoo_core.boundary import Contract, checked
from zoo_core.errors import InputError
from zoo_core.images.patches import check_dense
from zoo_core.nn.tracing import is_recorded

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray
    from PIL import Image

__all__ = ["MAX_PIXELS", "ImageLike", "Preprocessor", "check_pixels", "moved"]

MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded: a file of a few hundred bytes can claim gigabytes."""

ImageLike: TypeAlias = Union["Image.Image", str, os.PathLike[str], bytes, "NDArray[numpy.uint8]"]
"""A PIL image, the path of an image file, what such a file holds, or a uint8 array `[H, W, 3]` of RGB values."""


class Preprocessor(Contract, ABC):
    """Turns an image into a tensor. A subclass gives `__call__`; the rest is derived.

    Built by a factory `(config, *, image_size: tuple[int, int], train: bool = False) -> Preprocessor`. It is
    handed to data-loader workers, so it must survive pickling.

    Attributes:
        image_size: height and width of every tensor it returns.
        max_pixels: images of more pixels are refused before they are decoded; set it for larger ones that you trust.
        takes_bytes: images may be the bytes of a file; without it, training hands it PIL images of these.
    """

    image_size: tuple[int, int]
    max_pixels: int = MAX_PIXELS
    takes_bytes: bool = False

    @abstractmethod
    def __call__(self, image: ImageLike, *, generator: torch.Generator | None = None) -> Any:
        """Return `image` as a float32 tensor `[3, H, W]`, or as what else `collate` takes.

        Chance in it comes from `generator`, or from torch's global one where that is None. A subclass may leave the
        argument out: training then seeds the global generators for each image.

        Raises:
            InputError: it is no image that can be used.
            ImageFileError: the same of a file; its path is named.
        """

    @checked
    def prepare(self, pixels: Tensor, *, generator: torch.Generator | None = None) -> Any:
        """Preprocess a batch of raw pixels: one result for each image, on the same device.

        Here the images go through `__call__` one by one, as arrays on the CPU. A preprocessor that can work on the
        device of the pixels, on all of them at once, overrides this, and may return one tensor `[B, 3, H, W]`.

        Args:
            pixels: uint8 `[B, 3, H, W]`, red, green and blue of images of one size, on any device, as
                `check_pixels` lets them pass; possibly none.
            generator: what chance comes from; torch's global one where None.

        Raises:
            InputError: images of this size cannot be used.
        """
        arrays = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        options = {} if generator is None else {"generator": generator}  # a subclass need not know the argument
        return [moved(self(array, **options), pixels.device) for array in arrays]

    @checked
    def collate(self, prepared: Sequence[Any]) -> Any:
        """Return preprocessed images, possibly none, as one batch: a float32 tensor `[N, 3, H, W]`.

        A preprocessor that returns something else, such as patches, overrides this. Data loaders take it as
        `collate_fn`.

        Raises:
            InputError: they are something else than this preprocessor gives.
        """
        for image in prepared:
            if not isinstance(image, Tensor):
                kind = type(image).__name__
                raise InputError(f"expected tensors [3, H, W] as this preprocessing gives, found {kind}")
        return torch.stack(list(prepared)) if prepared else torch.empty((0, 3, *self.image_size))

    def batch(self, images: Iterable[ImageLike | Tensor] | Tensor) -> Any:
        """Return images as one batch; there may be none.

        Args:
            images: images, or raw pixels: uint8 tensors `[3, H, W]` of any sizes on one device, or one tensor
                `[B, 3, H, W]`, which is faster. The batch is on their device.

        Raises:
            InputError: as calling it does, with the index of the image before the message.
        """
        if isinstance(images, Tensor):
            check_pixels(images, batched=True)
            prepared = self.prepare(images)
            return moved(prepared if isinstance(prepared, Tensor) else self.collate(prepared), images.device)
        if isinstance(images, str) or not isinstance(cast("object", images), Iterable):
            raise InputError(f"batch takes several images, found one {type(images).__name__}; put it in a list")
        return self.collate(self._one_by_one(images))

    def _one_by_one(self, images: Iterable[ImageLike | Tensor]) -> list[Any]:
        prepared: list[Any] = []
        devices: dict[str, int] = {}
        for index, image in enumerate(images):
            try:
                if isinstance(image, Tensor):
                    check_pixels(image)
                    prepared.append(self.prepare(image[None])[0])
                else:
                    prepared.append(self(image))
            except InputError as error:
                raise type(error)(f"images[{index}]: {error}") from error
            devices.setdefault(str(image.device) if isinstance(image, Tensor) else "cpu", index)
        if len(devices) > 1:
            listed = " and ".join(f"images[{index}] on {name}" for name, index in devices.items())
            raise InputError(f"expected images on one device, found {listed}; move the tensors to one")
        return prepared


def check_pixels(pixels: Tensor, *, batched: bool = False) -> None:
    """Check that raw pixels are uint8 `[3, H, W]`, or `[B, 3, H, W]` where they are batched.

    Raises:
        InputError: they are something else, or they are traced. The message says how they become raw pixels, where
            that is clear.
    """
    check_dense(pixels)
    if is_recorded():
        raise InputError(
            "raw pixels cannot be traced or exported: the graph would keep what was computed of these; give it "
            "preprocessed images, as model.preprocess.batch makes them of raw pixels"
        )
    shape = tuple(pixels.shape)
    if pixels.dtype == torch.uint8 and len(shape) == (4 if batched else 3) and shape[-3] == 3:
        return
    expected = "[B, 3, H, W]" if batched else "[3, H, W]"
    if pixels.is_floating_point():
        hint = "floating point counts as preprocessed: raw values of 0..1 become (x * 255).round().to(torch.uint8)"
    elif pixels.dtype != torch.uint8:
        hint = "if its values are 0..255, .to(torch.uint8) converts it"
    else:
        hint = _shape_hint(shape, batched)
    actual = f"{pixels.dtype} {list(shape)}" + (hint and f"; {hint}")
    raise InputError(f"expected raw pixels as a uint8 tensor {expected}, found {actual}")


def _shape_hint(shape: tuple[int, ...], batched: bool) -> str:
    channels = shape[-3] if len(shape) >= 3 else 0
    if channels not in (0, 3) and shape[-1:] == (3,):
        return "put the channels first with .movedim(-1, -3)"
    if channels == 1:
        return "repeat the grey channel with torch.cat([x, x, x], dim=-3)"
    if channels == 4:
        return "leave out the fourth channel with x[..., :3, :, :]"
    if len(shape) == 4 and not batched:
        return "a batch goes by itself, in no list"
    return "flatten what stands before the channels into one dimension" if len(shape) > 4 else ""


def moved(prepared: Any, device: torch.device) -> Any:
    """Return a tensor, or a mapping of tensors, on a device."""
    if isinstance(prepared, Mapping):
        return {key: value.to(device) for key, value in cast("Mapping[str, Tensor]", prepared).items()}
    return prepared.to(device)
