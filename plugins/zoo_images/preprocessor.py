"""The image preprocessor: the arithmetic of torchvision's PIL transforms, without importing torchvision.

With the engine `pil`, evaluation gives the very bits that open_clip's `image_transform` gives, and
training gives its crops from the same seed; with `torch` few pixels differ from those, by 1/255. That is why sizes
are truncated in one place and rounded in another, and why the logarithm of a ratio is taken in float32: published
scores were measured so.

Differences, on purpose: with `torch`, palettes and bits become colours before they are resized, where Pillow takes the
nearest pixel; grey of 16 bits is scaled, not clipped; and `interpolation` holds for frames that are not square and for
training too.

Pillow and the engine are imported with the first picture, of which a model that encodes text alone never sees one.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from zoo_core.errors import InputError
from zoo_core.images import ImageLike, Preprocessor, check_pixels
from zoo_images.config import AugmentationConfig, ImageConfig

if TYPE_CHECKING:
    from PIL import Image

    from zoo_images.engines import Engine

__all__ = ["ImagePreprocessor", "check_raw_size", "crop_box", "jitter", "recoloured", "resized"]


class ImagePreprocessor(Preprocessor):
    """Turns a picture into a normalised float32 tensor `[3, H, W]`, raw pixels on their device; picklable.

    With `train`, chance comes from torch's global generator, so `torch.manual_seed` decides it.

    Args:
        config: sizes, colours and augmentation.
        image_size: height and width of the result.
        train: crop at random and augment instead of fitting the whole picture.
    """

    def __init__(self, config: ImageConfig, *, image_size: tuple[int, int], train: bool = False) -> None:
        self.config = config
        self.image_size = image_size
        self.train = train

    def __call__(self, image: ImageLike | torch.Tensor) -> torch.Tensor:
        """Return a picture, or raw pixels (uint8 `[3, H, W]`), as a float32 tensor `[3, H, W]`.

        Raises:
            ImageFileError: the file cannot be read as an image; its path and the reason are named.
            InputError: it is no image, or an unusable one.
        """
        if isinstance(image, torch.Tensor):
            check_pixels(image)
            return self.prepare(image[None])[0]
        draft = None if self.train or not self.config.draft else self.image_size
        sheet = self._engine.open(image, self.max_pixels, draft)
        return self._engine.pixels(self._augmented(sheet) if self.train else self._fitted(sheet, image))

    def prepare(self, pixels: torch.Tensor) -> Any:
        """Return raw pixels as float32 tensors `[3, H, W]` on their device, one `[B, 3, H, W]` of all but in training.

        The engine `torch` works on their device, but for a change of colours in training; `pil` works on the CPU.
        """
        if not self._engine.takes_raw:
            return super().prepare(pixels)
        check_raw_size(pixels, self.max_pixels)
        if self.train:
            return [self._engine.pixels(self._augmented(one)).to(pixels.device) for one in pixels]
        return self._engine.pixels(self._fitted(pixels, pixels))

    def __repr__(self) -> str:
        return f"ImagePreprocessor({self.config!r}, image_size={self.image_size}, train={self.train})"

    @cached_property
    def _engine(self) -> Engine:
        from zoo_images.engines import engine_of  # noqa: PLC0415 - Pillow

        return engine_of(self.config)

    def _fitted(self, sheet: Any, source: object) -> Any:
        """Resize the whole picture, then pad or crop it around its centre."""
        from zoo_images.reading import RAISE, refusal  # noqa: PLC0415 - Pillow

        (height, width), own = self.image_size, self._engine.size(sheet)
        size = resized(own, self.image_size, self.config.resize_mode)
        if math.prod(size) > max(self.max_pixels, height * width):
            raise refusal(
                source,
                f"its {own[1]} x {own[0]} pixels would be resized to {size[1]} x {size[0]}, "
                f"more than the limit of {self.max_pixels:,}; crop it first, use resize_mode 'longest', or {RAISE}",
            )
        sheet = self._engine.resample(sheet, size)
        if self.config.resize_mode == "longest":
            return self._engine.pad(sheet, self.image_size, self.config.fill)
        top, left = round((size[0] - height) / 2), round((size[1] - width) / 2)
        return self._engine.crop(sheet, top, left, self.image_size)

    def _augmented(self, sheet: Any) -> Any:
        options = self.config.train
        top, left, *size = crop_box(self._engine.size(sheet), options.scale, options.ratio)
        crop = self._engine.crop(sheet, top, left, (size[0], size[1]))
        return recoloured(self._engine.resample(crop, self.image_size), self._engine, options)


def check_raw_size(pixels: torch.Tensor, max_pixels: int) -> None:
    """Hold raw pixels `[B, 3, H, W]` to the limits of files.

    Raises:
        InputError: they have no pixels or too many, or are too elongated.
    """
    from zoo_images.reading import check_size, refusal  # noqa: PLC0415 - Pillow

    try:
        check_size(pixels.shape[3], pixels.shape[2], max_pixels)
    except InputError as error:
        raise refusal(pixels, str(error)) from None


def recoloured(sheet: Any, engine: Engine, options: AugmentationConfig) -> Any:
    """Change the colours of a training image as chance has it."""
    jitters = options.color_jitter is not None and _happens(options.color_jitter_probability)
    picture = engine.picture(sheet) if jitters else None
    if picture is not None and options.color_jitter is not None:
        picture = jitter(picture, *options.color_jitter)
    if _happens(options.grey_probability):
        picture = (picture or engine.picture(sheet)).convert("L").convert("RGB")
    return sheet if picture is None else engine.sheet(picture)


def resized(source: tuple[int, int], frame: tuple[int, int], mode: str) -> tuple[int, int]:
    """Return the height and width to which a picture is resized before it is cropped or padded to `frame`.

    Args:
        source: height and width of the picture.
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


def crop_box(
    source: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Draw a random crop as torchvision's `RandomResizedCrop` does, from the same draws of torch's generator.

    Area and log aspect ratio are uniform; after ten boxes that do not fit, the largest central one that keeps
    the ratio is taken.

    Args:
        source: height and width of the picture.
        scale: least and greatest share of its area.
        ratio: least and greatest ratio of width to height.

    Returns:
        top, left, height and width in pixels.
    """
    height, width = source
    low, high = torch.log(torch.tensor(ratio)).tolist()
    for _ in range(10):
        area = height * width * _uniform(*scale)
        aspect = torch.tensor(_uniform(low, high)).exp().item()
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(torch.randint(0, height - crop_height + 1, (1,)))
            left = int(torch.randint(0, width - crop_width + 1, (1,)))
            return top, left, crop_height, crop_width
    crop_height = min(height, max(1, round(width / ratio[0])))
    crop_width = min(width, max(1, round(height * ratio[1])))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def jitter(picture: Image.Image, brightness: float, contrast: float, saturation: float, hue: float) -> Image.Image:
    """Change the colours at random, in random order, as torchvision's `ColorJitter` does.

    Args:
        picture: an RGB image.
        brightness, contrast, saturation: `s` multiplies by a factor uniform in `[max(0, 1 - s), 1 + s]`.
        hue: turns by which the colour circle is rotated at most, either way.
    """
    from PIL import ImageEnhance  # noqa: PLC0415 - Pillow

    enhancers = ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color
    order = torch.randperm(4).tolist()
    factors = [_uniform(max(0.0, 1 - s), 1 + s) if s else 1.0 for s in (brightness, contrast, saturation)]
    turn = _uniform(-hue, hue) if hue else 0.0
    for index in order:
        if index < 3:
            picture = enhancers[index](picture).enhance(factors[index])
        elif hue:
            picture = _turned(picture, turn)
    return picture


def _turned(picture: Image.Image, turn: float) -> Image.Image:
    from PIL import Image  # noqa: PLC0415 - Pillow

    shift = int(turn * 255)
    hue, saturation, value = picture.convert("HSV").split()
    hue = hue.point([(level + shift) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def _uniform(low: float, high: float) -> float:
    return torch.empty(1).uniform_(low, high).item()


def _happens(probability: float) -> bool:
    """Draw once; nothing is drawn for a probability of 0."""
    return probability > 0 and torch.rand(()).item() < probability
