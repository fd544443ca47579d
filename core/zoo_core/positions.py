"""Positions that are not learned."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["sin_cos_2d"]

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
    angles = [place.reshape(-1, 1) * frequencies for place in (column, row)]  # each [rows * columns, width / 4]
    waves = [wave for angle in angles for wave in (angle.sin(), angle.cos())]
    return torch.cat(waves, dim=1).to(torch.get_default_dtype())
