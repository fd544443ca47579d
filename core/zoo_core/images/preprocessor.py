"""What a preprocessor is: pictures in, what a vision tower takes out: tensors, or pictures cut into patches.

Pictures that a decoder of videos or a data loader gave are tensors already. uint8 is what tells them from preprocessed
ones, which are in floating point: raw pixels are never anything else, and uint8 is never anything but raw pixels.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, Union, cast

from zoo_core.boundary import Contract, checked
from zoo_core.errors import InputError

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor, device

__all__ = ["MAX_PIXELS", "ImageLike", "Preprocessor", "check_pixels", "moved"]

MAX_PIXELS = 64_000_000
"""Larger pictures are refused before they are decoded: a few hundred bytes can claim gigabytes."""

ImageLike: TypeAlias = Union["Image.Image", str, os.PathLike[str], "NDArray[numpy.uint8]"]
"""A PIL image, the path of an image file, or a uint8 array `[H, W, 3]` of RGB values."""


class Preprocessor(Contract, ABC):
    """Turns a picture into a tensor. A subclass gives `__call__`; the rest is derived.

    Built by a factory `(config, *, image_size: tuple[int, int], train: bool = False) -> Preprocessor`. It is
    handed to data-loader workers, so it must survive pickling.

    Attributes:
        image_size: height and width of every tensor it returns.
        max_pixels: pictures of more pixels are refused before they are decoded; set it for larger ones that you trust.
    """

    image_size: tuple[int, int]
    max_pixels: int = MAX_PIXELS

    @abstractmethod
    def __call__(self, image: ImageLike) -> Any:
        """Return `image` as a float32 tensor `[3, H, W]`, or as what else `collate` takes.

        Raises:
            InputError: it is no image that can be used.
            ImageFileError: the same of a file; its path is named.
        """

    @checked
    def prepare(self, pixels: Tensor) -> Any:
        """Return a sequence of what calling it gives for each picture of a tensor, on the device of that.

        Here they go through `__call__` one by one, as arrays on the CPU. A preprocessor that can work where the pixels
        are, on all of them at once, overrides this; where it gives tensors, one `[B, 3, H, W]` is a sequence too.

        Args:
            pixels: uint8 `[B, 3, H, W]`, red, green and blue of pictures of one size, on any device, as
                `check_pixels` lets them pass; possibly none.

        Raises:
            InputError: pictures of this size cannot be used.
        """
        arrays = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return [moved(self(array), pixels.device) for array in arrays]

    @checked
    def collate(self, prepared: Sequence[Any]) -> Any:
        """Return what calling it gave for some pictures, possibly none, as one batch: a float32 tensor `[N, 3, H, W]`.

        A preprocessor that gives something else, such as patches, overrides this. Data loaders take it as
        `collate_fn`.

        Raises:
            InputError: they are something else than this preprocessor gives.
        """
        import torch

        for one in prepared:
            if not isinstance(one, torch.Tensor):
                raise InputError(f"expected tensors [3, H, W] as this preprocessing gives, found {type(one).__name__}")
        return torch.stack(list(prepared)) if prepared else torch.empty((0, 3, *self.image_size))

    def batch(self, images: Iterable[ImageLike | Tensor] | Tensor) -> Any:
        """Return pictures as one batch; there may be none.

        Args:
            images: pictures, or raw pixels: uint8 tensors `[3, H, W]` of any sizes on one device, or one tensor
                `[B, 3, H, W]`, which is faster. The batch is on their device.

        Raises:
            InputError: as calling it does, with the index of the image before the message.
        """
        import torch

        if isinstance(images, torch.Tensor):
            check_pixels(images, batched=True)
            prepared = self.prepare(images)
            return moved(prepared if isinstance(prepared, torch.Tensor) else self.collate(prepared), images.device)
        if isinstance(images, str) or not isinstance(cast("object", images), Iterable):
            raise InputError(f"batch takes several images, found one {type(images).__name__}; put it in a list")
        return self.collate(self._one_by_one(images))

    def _one_by_one(self, images: Iterable[ImageLike | Tensor]) -> list[Any]:
        import torch

        prepared: list[Any] = []
        devices: dict[str, int] = {}
        for index, picture in enumerate(images):
            try:
                if isinstance(picture, torch.Tensor):
                    check_pixels(picture)
                    prepared.append(self.prepare(picture[None])[0])
                else:
                    prepared.append(self(picture))
            except InputError as error:
                raise type(error)(f"images[{index}]: {error}") from error
            devices.setdefault(str(picture.device) if isinstance(picture, torch.Tensor) else "cpu", index)
        if len(devices) > 1:
            told = " and ".join(f"images[{index}] on {name}" for name, index in devices.items())
            raise InputError(f"expected images on one device, found {told}; move the tensors to one")
        return prepared


def check_pixels(pixels: Tensor, *, batched: bool = False) -> None:
    """Hold raw pixels to uint8 `[3, H, W]`, or `[B, 3, H, W]` where they are batched.

    Raises:
        InputError: they are something else (how they become raw pixels is told, where that can be told), or they are
            traced.
    """
    import torch

    from zoo_core.images.patches import check_dense
    from zoo_core.nn.tracing import is_recorded

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
    found = f"found {pixels.dtype} {list(shape)}" + (hint and f"; {hint}")
    raise InputError(f"expected raw pixels as a uint8 tensor {expected}, {found}")


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


def moved(prepared: Any, device: device) -> Any:
    """Return a tensor, or a mapping of tensors, on a device."""
    if isinstance(prepared, Mapping):
        return {key: value.to(device) for key, value in cast("Mapping[str, Tensor]", prepared).items()}
    return prepared.to(device)
