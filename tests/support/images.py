"""Images that are drawn, and the statistics that they are normalised with."""

from __future__ import annotations

import numpy as np
from PIL import Image

# Sizes of pictures are (width, height), as in PIL; frames are (height, width), as in tensors.
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """A picture with smooth parts, edges and noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    base = 127 + 90 * np.sin(x / 7)[..., None] * np.cos(y / 11)[..., None] * np.array([1, 0.6, -0.8])
    noisy = base + random.normal(0, 30, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).convert(mode)
