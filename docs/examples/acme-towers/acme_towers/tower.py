"""The convolutional tower: strided convolutions, the mean over the image, a projection."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from acme_towers.config import ConvMeanConfig
from zoo_core.interfaces import LayerGroup, VisionTower


class ConvMean(VisionTower):
    """Strided convolutions whose mean over the image is the feature."""

    variable_image_size = True

    def __init__(self, config: ConvMeanConfig, *, embed_dim: int) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.output_dim = embed_dim
        self.stages = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1), nn.GELU())
                for before, after in pairwise(config.widths)
            )
        )
        self.proj = nn.Linear(config.widths[-1], embed_dim)

    def forward(self, image: Tensor) -> Tensor:
        """Return features `[B, embed_dim]` of images `[B, 3, H, W]`."""
        x = self.stages(image)  # [B, C, h, w]
        return self.proj(x.mean(dim=(2, 3)))

    def layer_groups(self) -> Sequence[LayerGroup]:
        """Return each stage and the projection."""
        return [*([stage] for stage in self.stages), [self.proj]]
