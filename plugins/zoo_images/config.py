"""Configs of the image preprocessors.

The defaults are those that OpenAI's CLIP was trained with. Mean and std are on the 0..1 scale of the pixels. Values on
the 0..255 scale, a common slip that no library reports, are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from zoo_core.config import Config, PreprocessConfig, Size

__all__ = ["AugmentationConfig", "ColourConfig", "ImageConfig", "NaFlexImageConfig"]


def _numbers(count: int) -> BeforeValidator:
    """Return a validator that takes a list, which is what YAML gives, for a tuple of `count` numbers."""

    def as_tuple(value: object) -> object:
        if isinstance(value, list | tuple) and len(value) == count:
            return tuple(value)
        raise PydanticCustomError("numbers", "expected a list of {count} numbers", {"count": count})

    return BeforeValidator(as_tuple)


Probability = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
AspectRatio = Annotated[float, Field(ge=0.005, le=200)]
Mean = Annotated[float, Field(ge=0, le=1)]
Std = Annotated[float, Field(ge=1e-6, le=1)]  # far below any real spread, far above 0 in float32
Strength = Annotated[float, Field(ge=0, le=10)]
HueStrength = Annotated[float, Field(ge=0, le=0.5)]


class AugmentationConfig(Config):
    """What happens to training images; evaluation ignores it.

    A random crop is resized to the image size (the crop of Inception, https://arxiv.org/abs/1409.4842, over a
    narrow range of scales); colour jitter and grey follow SimCLR (https://arxiv.org/abs/2002.05709).
    """

    scale: Annotated[tuple[Fraction, Fraction], _numbers(2)] = (0.9, 1.0)
    """Least and greatest share of the image's area that a random crop covers."""
    ratio: Annotated[tuple[AspectRatio, AspectRatio], _numbers(2)] = (3 / 4, 4 / 3)
    """Least and greatest ratio of width to height of a random crop; to that of the image where it keeps its own."""
    color_jitter: Annotated[tuple[Strength, Strength, Strength, HueStrength], _numbers(4)] | None = None
    """Strength of the change of brightness, contrast, saturation and hue; hue in turns, at most 0.5."""
    color_jitter_probability: Probability = 0.0
    """How likely an image's colours are jittered."""
    grey_probability: Probability = 0.0
    """How likely an image loses its colours."""

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold ranges in order, and the jitter together with its probability."""
        for key, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if low > high:
                yield key, f"expected [least, greatest], found [{low:g}, {high:g}]"
        if self.color_jitter is None and self.color_jitter_probability > 0:
            yield (
                "color_jitter_probability",
                "does nothing without color_jitter, such as [0.3, 0.3, 0.3, 0.1]",
            )
        if self.color_jitter is not None and self.color_jitter_probability == 0:
            yield "color_jitter", "does nothing while color_jitter_probability is 0; set it to 0.8, say"


class ColourConfig(PreprocessConfig):
    """What preprocessors share: how pixels are resampled and normalised."""

    before: ClassVar[Mapping[str, Any]] = {"alpha": "ignore"}

    mean: Annotated[tuple[Mean, Mean, Mean], _numbers(3)] = (0.48145466, 0.4578275, 0.40821073)
    """Subtracted from red, green and blue, which are in 0..1."""
    std: Annotated[tuple[Std, Std, Std], _numbers(3)] = (0.26862954, 0.26130258, 0.27577711)
    """What red, green and blue are divided by after that."""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    """How pixels are resampled, for evaluation and for training."""
    engine: Literal["torch", "pil"] = "torch"
    """What resamples pixels. `pil` gives the very bits that published scores were measured with; `torch` is faster, and
    few of its pixels differ from those, by 1/255 (see docs/benchmarks.md)."""
    alpha: Literal["drop", "ignore", "black", "white"] = "drop"
    """What becomes of transparency. `drop`: pixels count for as much as they are opaque while an alpha channel is
    resampled, then it is dropped, as Pillow and open_clip do; what is clear all over becomes black. `ignore`: it is
    dropped first, which shows the colours hidden below it. `black`, `white`: the image is laid on that colour first,
    as transformers 5 does on white."""
    exif: bool = False
    """Turn photographs upright as their EXIF orientation says. Off, because published weights were trained
    and measured without. Pillow turns TIFF files in any case."""


class ImageConfig(ColourConfig):
    """How an image becomes the tensor that a vision tower takes."""

    type: str = "image"
    """Name of the preprocessor component."""
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    """For evaluation: `shortest` fills the frame and crops what stands out, `longest` shows the whole image
    and pads, `squash` gives up its aspect ratio."""
    fill: Annotated[int, Field(ge=0, le=255)] = 0
    """Grey level of the padding that `longest` adds."""
    draft: bool = False
    """For evaluation: read large JPEG files at a half, a quarter or an eighth of their size, at least twice the frame.
    It is faster and deviates further from the published way than any engine."""
    train: AugmentationConfig = AugmentationConfig()
    """Augmentation of training images."""

    def rules(self) -> Iterator[tuple[str, str]]:
        """Refuse padding that nothing would use."""
        if self.fill and self.resize_mode != "longest":
            yield "fill", f"only resize_mode 'longest' pads, found '{self.resize_mode}'; leave fill out"


class NaFlexImageConfig(ColourConfig):
    """How an image becomes patches: in its own aspect ratio, and as large as the number of patches allows."""

    type: str = "naflex"
    """Name of the preprocessor component."""
    patch_size: Size = (16, 16)
    """Height and width in pixels of a patch; those that the tower takes."""
    image_seq_len: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Greatest number of patches of an image; as many as the image size of the tower has where null."""
    train: AugmentationConfig = AugmentationConfig()
    """Augmentation of training images; the ratio of a crop is relative to that of the image."""

    def gives_patches(self) -> tuple[int, int]:
        """Return the size of a patch."""
        return self.patch_size
