"""Images as a vision tower takes them: prepared, checked, cut into patches."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from zoo_core.boundary.library_code import library_code
from zoo_core.boundary.plugin_code import maker_of
from zoo_core.errors import InputError, PluginError
from zoo_core.images import Preprocessor, moved
from zoo_core.images.patches import PatchBatch, check_dense, check_patches, described
from zoo_core.interfaces import VisionTower
from zoo_core.models.chance import call_with
from zoo_core.models.modality import Modality, device_of, is_raw
from zoo_core.nn.precision import matrix_dtype
from zoo_core.nn.tracing import is_symbolic

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["ImageModality"]


class ImageModality(Modality):
    """Images: PIL images, paths, raw pixels (uint8), preprocessed tensors and patch batches."""

    def check(self, batch: Any, tower: VisionTower) -> None:
        """Hold images to floating point `[B, C, H, W]` and the sizes of the tower, and patches to its patches."""
        if isinstance(batch, Mapping):
            _checked_patches(cast("Mapping[str, Any]", batch), tower)
        else:
            _check_image(batch, tower)

    def example(self, tower: VisionTower, count: int, processor: Preprocessor | None = None) -> Tensor:
        """Return random images `[count, C, H, W]` of the size of the tower."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, tower.image_channels, *tower.image_size, generator=generator)

    def probe_inputs(self) -> Sequence[Image.Image]:
        """Return one image of 120 x 90 pixels.

        Red and green are slopes, and blue has squares that shrink towards the right: another size, interpolation or
        normalisation shows.
        """
        import numpy  # noqa: PLC0415 - as is Pillow
        from PIL import Image  # noqa: PLC0415 - a text tower alone needs no Pillow

        y, x = numpy.mgrid[0:90, 0:120]
        blue = 255 * ((x // (3 + (119 - x) // 12) + y // 7) % 2)
        return [Image.fromarray(numpy.stack([x * 255 // 119, y * 255 // 89, blue], axis=-1).astype(numpy.uint8))]

    def prepare_one(self, processor: Preprocessor, raw: Any, *, generator: torch.Generator | None = None) -> Any:
        """Return one image, possibly the bytes of a file, preprocessed; the arguments are those of `Modality`."""
        image = _opened(raw) if isinstance(raw, bytes) and not processor.takes_bytes else raw
        return call_with(generator, processor, image)

    def collate(self, processor: Preprocessor, prepared: Sequence[Any]) -> Any:
        """Return preprocessed images as one batch."""
        return processor.collate(prepared)

    def check_raw(self, raw: Any, limits: Mapping[str, Any]) -> None:
        """Refuse images below `min_size` pixels in height or width, or beyond `max_aspect`."""
        least, most = limits.get("min_size", 1), limits.get("max_aspect")
        if least == 1 and most is None:
            return  # the size of an image file costs its header
        height, width = _size_of(raw)
        if min(height, width) < least:
            raise InputError(f"the image has {width} x {height} pixels, less than {least} on a side")
        if most is not None and max(height, width) > most * min(height, width):
            raise InputError(f"the image has {width} x {height} pixels, more elongated than {most:g}:1")

    def inputs(self, model: Any, tower: VisionTower, value: Any) -> Any:
        """Return images `[B, C, H, W]` or a patch batch; the arguments and errors are those of `Modality.inputs`."""
        if is_symbolic(value):
            return value.to(matrix_dtype(tower, value.dtype))
        if is_raw(value) or not isinstance(value, Tensor | Mapping):
            value = moved(_batch(self.processor(model), value), device_of(tower, model.logit_scale))
        if isinstance(value, Mapping):
            return _checked_patches(cast("Mapping[str, Any]", value), tower)
        _check_image(value, tower)
        return value.to(matrix_dtype(tower, value.dtype))


def _opened(content: bytes | str | os.PathLike[str]) -> Image.Image:
    """Return the image of a file, or of what a file holds, of which nothing but the header is read."""
    from PIL import Image  # noqa: PLC0415 - a text tower alone needs no Pillow

    with library_code(lambda why: InputError(f"cannot be read as an image: {why}")), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # preprocessing has a limit of its own
        return Image.open(io.BytesIO(content) if isinstance(content, bytes) else content)


def _size_of(raw: Any) -> tuple[int, int]:
    """Return height and width of an image."""
    if isinstance(raw, bytes | str | os.PathLike):
        with _opened(cast("bytes | str", raw)) as image:
            return image.height, image.width
    if hasattr(raw, "shape"):
        return raw.shape[0], raw.shape[1]
    return raw.height, raw.width


def _batch(preprocess: Preprocessor | None, value: Any) -> Tensor | PatchBatch:
    """Preprocess one image or a list of images into a batch; a list may also hold what was preprocessed before."""
    if preprocess is None:
        what = f"raw pixels {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        raise InputError(
            f"expected a preprocessed image tensor [B, C, H, W], found {what}: this model has no "
            "preprocessing; build it with zoo.build, or set model.preprocess"
        )
    if isinstance(value, Tensor):
        return _preprocessed(preprocess, value if value.ndim > 3 else [value])
    images = cast("Sequence[Any]", value) if isinstance(value, list | tuple) else [value]
    if images and all(isinstance(image, Mapping) for image in images):
        return preprocess.collate(images)
    tensors = [image for image in images if isinstance(image, Tensor) and not is_raw(image)]
    if not tensors or len(tensors) < len(images):
        return _preprocessed(preprocess, images)
    for index, tensor in enumerate(tensors):
        if tensor.shape != tensors[0].shape:
            shapes = f"images[0] is {list(tensors[0].shape)} and images[{index}] is {list(tensor.shape)}"
            raise InputError(f"expected image tensors of one shape, but {shapes}; preprocess them all alike")
    return torch.stack(tensors)


def _preprocessed(preprocess: Preprocessor, images: Any) -> Tensor | PatchBatch:
    """Return the batch that a preprocessor makes of images.

    Raises:
        PluginError: it makes no batch of as many images. Patches are checked later, as those of users are.
    """
    batch: Any = preprocess.batch(images)
    expected = (len(images), 3, *preprocess.image_size)
    if isinstance(batch, Mapping):
        return cast("PatchBatch", batch)
    if not isinstance(batch, Tensor) or batch.shape != expected or not batch.is_floating_point():
        what = described(batch) if isinstance(batch, Tensor) else type(batch).__name__
        promise = f"it must give floating-point images {list(expected)}, or patches, found {what}"
        raise PluginError(f"{maker_of(type(preprocess))}: {promise}")
    return batch


def _checked_patches(batch: Mapping[str, Any], tower: VisionTower) -> PatchBatch:
    """Return a patch batch that fits the tower, its pixels in the dtype of the tower's matrices.

    Raises:
        InputError: it does not fit, or the tower takes no patches.
    """
    if tower.image_patches is None:
        height, width = tower.image_size
        raise InputError(
            f"expected images [B, {tower.image_channels}, {height}, {width}], found a mapping: "
            f"{type(tower).__name__} takes no patches"
        )
    checked = check_patches(batch, tower.image_patches, tower.image_channels)
    return {**checked, "patches": checked["patches"].to(matrix_dtype(tower, checked["patches"].dtype))}


def _check_image(image: Tensor, tower: VisionTower) -> None:
    """Hold preprocessed images to floating point `[B, C, H, W]` and to the sizes that the tower takes.

    Raises:
        InputError: they are something else.
    """
    check_dense(image)
    height, width = tower.image_size
    if image.ndim != 4 or image.shape[1] != tower.image_channels:
        hint = "; add the batch dimension with image[None]" if image.ndim == 3 else ""
        expected = f"images [B, {tower.image_channels}, {height}, {width}]"
        raise InputError(f"expected {expected}, found {described(image)}{hint}")
    if not image.is_floating_point():
        raise InputError(
            f"expected preprocessed images in floating point, or raw pixels as uint8, found {described(image)}"
        )
    if not tower.variable_image_size and tuple(image.shape[2:]) != tower.image_size:
        raise InputError(
            f"expected images of {height} x {width} pixels, found {described(image)}; preprocess them with "
            "model.preprocess, which takes raw pixels as uint8, or build the model for this size with "
            "overrides=['vision.image_size=...']"
        )
    if tower.image_patches is not None:
        rows, columns = tower.image_patches
        if image.shape[2] % rows or image.shape[3] % columns or 0 in image.shape[2:]:
            expected = f"images that are whole patches of {rows} x {columns} pixels"
            raise InputError(f"expected {expected}, found {described(image)}")
