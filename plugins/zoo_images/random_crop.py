"""Random crops, drawn as torchvision draws them."""

from __future__ import annotations

import math

import torch

__all__ = ["crop_box", "uniform"]


def crop_box(
    source: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    *,
    generator: torch.Generator | None = None,
) -> tuple[int, int, int, int]:
    """Draw a random crop as torchvision's `RandomResizedCrop` does, from the same draws of torch's generator.

    Area and log aspect ratio are uniform; after ten boxes that do not fit, the largest central one that keeps
    the ratio is taken.

    Args:
        source: height and width of the image.
        scale: least and greatest share of its area.
        ratio: least and greatest ratio of width to height.
        generator: what draws; torch's global one where None.

    Returns:
        top, left, height and width in pixels.
    """
    height, width = source
    low, high = torch.log(torch.tensor(ratio)).tolist()
    for _ in range(10):
        area = height * width * uniform(*scale, generator)
        aspect = torch.tensor(uniform(low, high, generator)).exp().item()
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(torch.randint(0, height - crop_height + 1, (1,), generator=generator))
            left = int(torch.randint(0, width - crop_width + 1, (1,), generator=generator))
            return top, left, crop_height, crop_width
    crop_height = min(height, max(1, round(width / ratio[0])))
    crop_width = min(width, max(1, round(height * ratio[1])))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def uniform(low: float, high: float, generator: torch.Generator | None = None) -> float:
    """Draw a number from a generator, from torch's global one where there is none."""
    return torch.empty(1).uniform_(low, high, generator=generator).item()
