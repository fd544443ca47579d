"""Config of the convolutional tower: what may stand in the `vision` section of an architecture."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated

from pydantic import Field

from zoo_core.config import Size, VisionTowerConfig


class ConvMeanConfig(VisionTowerConfig):
    """Strided convolutions and the mean over the image."""

    tower: str = "conv-mean"
    image_size: Size = (64, 64)
    """Height and width in pixels of the images."""
    width: Annotated[int, Field(ge=1, le=1024)] = 16
    """Channels after the first stage; each later stage doubles them."""
    stages: Annotated[int, Field(ge=1, le=6)] = 3
    """Convolutions, each of which halves the image."""

    @property
    def widths(self) -> list[int]:
        """Channels before the first stage and after each."""
        return [3, *(self.width * 2**stage for stage in range(self.stages))]

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold the stages to the image."""
        yield from super().rules()
        if min(self.image_size) < 2**self.stages:
            yield "stages", f"{self.stages} stages need images of at least {2**self.stages} pixels a side"

    def parameter_count(self, embed_dim: int) -> int:
        """Return the exact number of parameters."""
        stages = sum(9 * before * after + after for before, after in pairwise(self.widths))
        return stages + self.widths[-1] * embed_dim + embed_dim
