"""What a preprocessor is: pictures in, what a vision tower takes out: tensors, or pictures cut into patches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from zoo_core.errors import InputError

if TYPE_CHECKING:
    import os

    import numpy
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
    def __call__(self, image: ImageLike) -> Any:
        """Return `image` as a float32 tensor `[3, H, W]`, or as what else `collate` takes.

        Raises:
            InputError: it is no image that can be used.
            ImageFileError: the same of a file; its path is named.
        """

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

    def batch(self, images: Iterable[ImageLike]) -> Any:
        """Return `images` as one batch; there may be none.

        Raises:
            InputError: as calling it does, with the index of the image before the message.
        """
        if isinstance(images, str) or not isinstance(cast("object", images), Iterable):
            raise InputError(f"batch takes several images, found one {type(images).__name__}; put it in a list")
        prepared: list[Any] = []
        for index, picture in enumerate(images):
            try:
                prepared.append(self(picture))
            except InputError as error:
                raise type(error)(f"images[{index}]: {error}") from error
        return self.collate(prepared)
