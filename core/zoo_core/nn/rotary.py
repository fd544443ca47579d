"""Rotary position embedding (Su et al. 2021).

Queries and keys are rotated by angles that grow with their position. A pair is two neighbouring channels (0 and 1, 2
and 3), as in the paper; LLaMA pairs the first half of the channels with the second. Angles are computed in float32 at
least, whatever the model's dtype, since bfloat16 cannot count beyond 256.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["rotate", "rotation"]


def rotation(positions: range, width: int, temperature: float, like: Tensor) -> Tensor:
    """Return the cosines and sines of the angles for `rotate`.

    Args:
        positions: of the tokens; the first of a row is 0.
        width: channels of a head; even.
        temperature: ratio between the slowest and the fastest rotation.
        like: tells the device, and the dtype: that of `like`, but float32 at least.

    Returns:
        `[2, len(positions), width / 2]`.
    """
    exact = torch.float32 if like.device.type == "mps" else torch.float64
    position = torch.arange(positions.start, positions.stop, device=like.device, dtype=exact)
    pair = torch.arange(width // 2, device=like.device, dtype=exact)
    angles = position[:, None] * temperature ** (-2 * pair / width)  # [N, width / 2]
    return torch.stack([angles.cos(), angles.sin()]).to(torch.promote_types(like.dtype, torch.float32))


def rotate(x: Tensor, rotary: Tensor) -> Tensor:
    """Rotate the pairs of channels of `x` `[..., N, C]` by the `rotation` of its N positions; the dtype stays."""
    cos, sin = rotary.unbind(0)  # [N, C / 2]
    even, odd = x.reshape(*x.shape[:-1], x.shape[-1] // 2, 2).unbind(-1)  # [..., N, C / 2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).to(x.dtype)
