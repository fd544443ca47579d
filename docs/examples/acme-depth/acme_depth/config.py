"""Configs of depth maps: the base of any tower and any preprocessing of them, and ours."""

from typing import Annotated, Any, ClassVar

from pydantic import Field

from zoo_core.config import ProcessorConfig, Size, TowerConfig


class DepthTowerConfig(TowerConfig):
    """Base of the configs of towers of depth maps."""

    kind: ClassVar[str] = "depth-tower"
    modality: ClassVar[str] = "depth"

    tower: str
    """Name of the tower component."""
    map_size: Size = (16, 16)
    """Height and width of the maps."""

    def attributes(self) -> dict[str, Any]:
        """Return the size of the maps, which the tower and its preprocessing share."""
        return {"map_size": self.map_size}


class DepthConvConfig(DepthTowerConfig):
    """Two convolutions and the mean over the map."""

    tower: str = "depth-conv"
    width: Annotated[int, Field(ge=1, le=1024)] = 8
    """Channels."""


class DepthPreprocessConfig(ProcessorConfig):
    """Base of the configs of what makes tensors of depth maps."""

    kind: ClassVar[str] = "depth-preprocessor"
    modality: ClassVar[str] = "depth"

    type: str
    """Name of the preprocessor component."""


class DepthMapConfig(DepthPreprocessConfig):
    """Maps resized, and divided by the largest depth."""

    type: str = "depth-map"
    max_depth: Annotated[float, Field(gt=0)] = 10.0
    """Metres that become 1; what is farther away is cut to it."""
