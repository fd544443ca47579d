"""Preprocessors of images, and patch batches."""

from zoo_core.images.preprocessor import (
    MAX_PIXELS,
    ImageLike,
    Preprocessor,
    check_pixels,
    moved,
)

__all__ = [
    "MAX_PIXELS",
    "ImageLike",
    "Preprocessor",
    "check_pixels",
    "moved",
]
