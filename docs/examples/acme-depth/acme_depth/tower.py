"""A tower of depth maps: two convolutions, the mean over the map, a projection."""

from torch import Tensor, nn

from acme_depth.config import DepthConvConfig
from zoo_core.interfaces import Tower


class DepthConv(Tower):
    """Two convolutions whose mean over the map is the feature."""

    modality = "depth"

    def __init__(self, config: DepthConvConfig, *, embed_dim: int) -> None:
        super().__init__()
        self.map_size = config.map_size
        self.output_dim = embed_dim
        self.stem = nn.Conv2d(1, config.width, kernel_size=3, stride=2, padding=1)
        self.conv = nn.Conv2d(config.width, config.width, kernel_size=3, padding=1)
        self.proj = nn.Linear(config.width, embed_dim)

    def forward(self, depth: Tensor) -> Tensor:
        """Return features `[B, embed_dim]` of maps `[B, 1, H, W]`."""
        x = self.stem(depth).relu()  # [B, C, H / 2, W / 2]
        x = self.conv(x).relu()
        return self.proj(x.mean(dim=(2, 3)))
