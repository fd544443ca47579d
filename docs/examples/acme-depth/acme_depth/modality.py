"""Depth maps as towers take them: read, resized, checked."""

from collections.abc import Sequence
from typing import Any

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor

from acme_depth.config import DepthMapConfig
from zoo_core.errors import InputError, describe
from zoo_core.models.modality import Modality, Processor


class DepthMaps(Processor):
    """Makes tensors `[1, H, W]` of depth maps in metres: float arrays `[h, w]`, or paths of .npy files."""

    def __init__(self, config: DepthMapConfig, *, map_size: tuple[int, int], train: bool = False) -> None:
        self.max_depth = config.max_depth
        self.map_size = map_size

    def __call__(self, raw: Any) -> Tensor:
        """Return a map of the tower's size, in 0..1."""
        try:
            depth = torch.as_tensor(raw if isinstance(raw, numpy.ndarray) else numpy.load(raw))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{describe(raw)} is no depth map: {error}") from error
        if depth.ndim != 2 or not depth.is_floating_point():
            raise InputError(f"expected a depth map [h, w] in metres, found {depth.dtype} {list(depth.shape)}")
        depth = (depth.float() / self.max_depth).clamp(0, 1)
        return F.interpolate(depth[None, None], self.map_size, mode="area")[0]


class DepthModality(Modality):
    """Depth maps, of one channel."""

    def check(self, batch: Any, tower: Any) -> None:
        """Hold maps to floating point `[B, 1, H, W]`."""
        expected = (1, *tower.map_size)
        if batch.ndim != 4 or tuple(batch.shape[1:]) != expected or not batch.is_floating_point():
            found = f"{batch.dtype} {list(batch.shape)}"
            raise InputError(f"expected depth maps [B, {', '.join(map(str, expected))}], found {found}")

    def example(self, tower: Any, count: int, processor: Any = None) -> Tensor:
        """Return random maps `[count, 1, H, W]`."""
        return torch.rand(count, 1, *tower.map_size, generator=torch.Generator().manual_seed(0))

    def probe_inputs(self) -> Sequence[numpy.ndarray]:
        """Return a slope with a step in it."""
        y, x = numpy.mgrid[0:24, 0:40].astype(numpy.float32)
        return [x / 8 + y / 4 + 3 * (x > 20)]
