"""What a preprocessor is: pictures in, the float tensor that a vision tower takes out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias, cast

from zoo_core.errors import InputError

if TYPE_CHECKING:
    import os

    import numpy
    import torch
    from numpy.typing import NDArray
    from PIL import Image

__all__ = ["ImageLike", "Preprocessor"]

ImageLike: TypeAlias = "Image.Image | str | os.PathLike[str] | NDArray[numpy.uint8]"
"""A PIL image, the path of an image file, or a uint8 array `[H, W, 3]` of RGB values."""


class Preprocessor(ABC):
    """Turns a picture into a tensor. A subclass gives `__call__`; `batch` is derived.

    Built by a factory `(config, *, image_size: tuple[int, int], train: bool = False) -> Preprocessor`. It is
    handed to data-loader workers, so it must survive pickling.

    Attributes:
        image_size: height and width of every tensor it returns.
    """

    image_size: tuple[int, int]

    @abstractmethod
    def __call__(self, image: ImageLike) -> torch.Tensor:
        """Return `image` as a float32 tensor `[3, H, W]`.

        Raises:
            InputError: it is no image that can be used.
            ImageFileError: the same of a file; its path is named.
        """

    def batch(self, images: Iterable[ImageLike]) -> torch.Tensor:
        """Return `images` as one float32 tensor `[N, 3, H, W]`; `N` may be 0.

        Raises:
            InputError: as calling it does, with the index of the image before the message.
        """
        import torch

        if isinstance(images, str) or not isinstance(cast("object", images), Iterable):
            raise InputError(f"batch takes several images, found one {type(images).__name__}; put it in a list")
        pictures = list(images)
        rows = torch.empty((len(pictures), 3, *self.image_size), dtype=torch.float32)
        for index, picture in enumerate(pictures):
            try:
                rows[index] = self(picture)
            except InputError as error:
                raise type(error)(f"images[{index}]: {error}") from error
        return rows
