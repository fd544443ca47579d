"""Random colours of training images, drawn as torchvision's `ColorJitter` draws them."""

from __future__ import annotations

import torch
from PIL import Image, ImageEnhance

from zoo_images.random_crop import uniform

__all__ = ["happens", "jitter"]


def jitter(
    image: Image.Image,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    *,
    generator: torch.Generator | None = None,
) -> Image.Image:
    """Change the colours at random, in random order, as torchvision's `ColorJitter` does.

    Args:
        image: an RGB image.
        brightness, contrast, saturation: `s` multiplies by a factor uniform in `[max(0, 1 - s), 1 + s]`.
        hue: turns by which the colour circle is rotated at most, either way.
        generator: what draws; torch's global one where None.
    """
    enhancers = ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color
    order = torch.randperm(4, generator=generator).tolist()
    factors = [uniform(max(0.0, 1 - s), 1 + s, generator) if s else 1.0 for s in (brightness, contrast, saturation)]
    turn = uniform(-hue, hue, generator) if hue else 0.0
    for index in order:
        if index < 3:
            image = enhancers[index](image).enhance(factors[index])
        elif hue:
            shift = int(turn * 255)
            channel, saturated, value = image.convert("HSV").split()
            channel = channel.point([(level + shift) % 256 for level in range(256)])
            image = Image.merge("HSV", (channel, saturated, value)).convert("RGB")
    return image


def happens(probability: float, generator: torch.Generator | None = None) -> bool:
    """Draw once; nothing is drawn for a probability of 0."""
    return probability > 0 and torch.rand((), generator=generator).item() < probability
