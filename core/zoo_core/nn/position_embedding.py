"""Position embeddings: fixed ones, and resampling of learned ones.

A table of positions does not tell the shape of its grid. The shape follows from the proportions of the images that the
weights were trained on, or of the images of the model; a table that fits neither is an error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["PositionTable", "Resampling", "grid_of", "resample", "sin_cos_2d"]

Resampling = Literal["bicubic", "bilinear"]
"""How positions of a grid are interpolated; those of a row always linearly."""

PERIOD = 10_000.0
"""Ratio between the slowest and the fastest frequency (Vaswani et al. 2017)."""


def sin_cos_2d(rows: int, columns: int, width: int) -> Tensor:
    """Return a code for each cell of a grid (Chen et al. 2021, MoCo v3).

    The first half of the channels codes the column and the second the row, each as sines and then cosines.

    Args:
        rows, columns: size of the grid.
        width: channels; divisible by 4.

    Returns:
        `[rows * columns, width]` in the default dtype, row by row.
    """
    row, column = torch.meshgrid(
        torch.arange(rows, dtype=torch.float64), torch.arange(columns, dtype=torch.float64), indexing="ij"
    )
    frequencies = PERIOD ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = [index.reshape(-1, 1) * frequencies for index in (column, row)]  # each [rows * columns, width / 4]
    waves = [wave for angle in angles for wave in (angle.sin(), angle.cos())]
    return torch.cat(waves, dim=1).to(torch.get_default_dtype())


@dataclass(frozen=True)
class PositionTable:
    """Where the learned positions of a tower are, in a parameter `[prefix + N + suffix, C]` or `[1, ..., C]`.

    Attributes:
        size: `(rows, columns)` of patches, or `(length,)` of a row of tokens; N in all.
        prefix: positions of class tokens and registers before them.
        suffix: positions of such tokens behind them.
    """

    size: tuple[int, ...]
    prefix: int = 0
    suffix: int = 0

    @property
    def extra(self) -> int:
        """Positions of class tokens and registers."""
        return self.prefix + self.suffix


def grid_of(count: int, proportions: tuple[int, int]) -> tuple[int, int] | None:
    """Return `(rows, columns)` of a grid of `count` cells: in these proportions, else square, else None."""
    height, width = proportions
    rows = math.isqrt(count * height // width)
    if rows * width * rows == count * height and rows and count % rows == 0:
        return rows, count // rows
    side = math.isqrt(count)
    return (side, side) if side and side * side == count else None


def resample(table: Tensor, old: PositionTable, new: PositionTable, mode: Resampling) -> Tensor:
    """Return positions for another grid or another length, as open_clip and timm compute them.

    Args:
        table: `[prefix + N + suffix, C]` or `[1, prefix + N + suffix, C]`, in any floating-point dtype.
        old: how it is made up.
        new: how the result is; equal in prefix and suffix.
        mode: interpolation of a grid, with antialiasing. A row is interpolated linearly and without.

    Returns:
        a tensor with as many dimensions and of the same dtype, computed in float32.
    """
    rows = table.float().reshape(-1, table.shape[-1])
    prefix, positions, suffix = rows.tensor_split([old.prefix, len(rows) - old.suffix])
    grid = positions.T.reshape(1, -1, *old.size)  # [1, C, rows, columns] or [1, C, length]
    if len(old.size) == 1:
        grid = F.interpolate(grid, size=new.size, mode="linear", align_corners=False)
    else:
        grid = F.interpolate(grid, size=new.size, mode=mode, align_corners=False, antialias=True)
    resampled = torch.cat([prefix, grid.flatten(2)[0].T, suffix])
    return resampled.reshape(*table.shape[:-2], *resampled.shape).to(table.dtype)
