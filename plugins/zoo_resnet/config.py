"""Config of CLIP's modified ResNet.

The trunk is always ReLU, so there is no activation to choose.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from zoo_core.config import Size, VisionTowerConfig

__all__ = ["EXPANSION", "REDUCTION", "ModifiedResNetConfig"]

REDUCTION = 32
"""Pixels of the image, along each side, to one cell of the last feature map."""
EXPANSION = 4
"""Channels out of a bottleneck, as a multiple of those inside."""


def _as_depths(value: object) -> object:
    """Turn the list that YAML gives into a tuple of four."""
    if isinstance(value, list | tuple) and len(value) == 4:
        return tuple(value)
    raise PydanticCustomError("depths", "expected four depths such as [3, 4, 6, 3]")


Depth = Annotated[int, Field(ge=1, le=1_000)]


class ModifiedResNetConfig(VisionTowerConfig):
    """A ResNet whose stem has three convolutions and whose last feature map is pooled by attention."""

    fixed_activation: ClassVar[str | None] = "relu"
    """Activation of the trunk; a model's `quick_gelu` concerns its text tower alone."""

    tower: str = "modified-resnet"
    image_size: Size = (224, 224)
    """Height and width in pixels of the images; multiples of 32. Images of another such size are taken too."""
    layers: Annotated[tuple[Depth, Depth, Depth, Depth], BeforeValidator(_as_depths)] = (3, 4, 6, 3)
    """Bottleneck blocks of each of the four stages: four whole numbers."""
    width: Annotated[int, Field(ge=2, le=65_536)] = 64
    """Channels after the stem, an even number; the last feature map has 32 times as many."""
    head_width: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Channels of a head of the attention pooling; divides 32 times the width."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the last feature map."""
        return self.image_size[0] // REDUCTION, self.image_size[1] // REDUCTION

    @property
    def stage_widths(self) -> tuple[int, int, int, int]:
        """Channels inside the blocks of each stage."""
        return self.width, 2 * self.width, 4 * self.width, 8 * self.width

    @property
    def pool_width(self) -> int:
        """Channels of the last feature map, which the attention pooling works in."""
        return EXPANSION * self.stage_widths[-1]

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold the image to the strides, the stem to its half and heads to the pooled width."""
        yield from super().rules()
        for side, image in zip(("height", "width"), self.image_size, strict=True):
            if image % REDUCTION:
                yield "image_size", f"{REDUCTION} does not divide the image {side} {image}"
        if self.width % 2:
            yield "width", f"must be even, because the stem opens with half of it; found {self.width}"
        if self.pool_width % self.head_width:
            yield "head_width", f"{self.head_width} does not divide {self.pool_width}, which is 32 times the width"

    def parameter_count(self, embed_dim: int) -> int:
        """Return the exact number of parameters; running statistics of batch norms are none."""
        half, width = self.width // 2, self.width
        count = 9 * (3 * half + half * half + half * width) + 2 * (half + half + width)
        inputs = width
        for inner, depth in zip(self.stage_widths, self.layers, strict=True):
            outer = EXPANSION * inner
            block = 9 * inner * inner + inner * outer + 2 * (inner + inner + outer)  # but for its first convolution
            count += depth * block + (inputs + (depth - 1) * outer) * inner
            count += inputs * outer + 2 * outer  # the first block's shortcut
            inputs = outer
        rows, columns = self.grid
        width = self.pool_width
        pool = (rows * columns + 1) * width + 3 * (width * width + width) + width * embed_dim + embed_dim
        return count + pool
