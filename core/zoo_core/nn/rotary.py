"""Rotary positions (Su et al. 2021): queries and keys are turned by angles that grow with their place.

What you would not guess: a pair is two neighbouring channels (0 and 1, 2 and 3), as in the paper; LLaMA pairs the
first half of the channels with the second. Angles and turns are computed in float32 at least, whatever the model's
dtype, since bfloat16 cannot count beyond 256.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["rotate", "rotation"]


def rotation(places: range, width: int, temperature: float, like: Tensor) -> Tensor:
    """Return the cosines and sines of what `rotate` turns by.

    Args:
        places: which positions, the first of a row being 0.
        width: channels of a head; even.
        temperature: ratio between the slowest and the fastest turn.
        like: tells the device, and the dtype: that of `like`, but float32 at least.

    Returns:
        `[2, len(places), width / 2]`.
    """
    exact = torch.float32 if like.device.type == "mps" else torch.float64
    place = torch.arange(places.start, places.stop, device=like.device, dtype=exact)
    pair = torch.arange(width // 2, device=like.device, dtype=exact)
    angles = place[:, None] * temperature ** (-2 * pair / width)
    return torch.stack([angles.cos(), angles.sin()]).to(torch.promote_types(like.dtype, torch.float32))


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Turn the pairs of channels of `x` `[..., N, C]` by what `rotation` gave for its N places; the dtype stays."""
    cos, sin = turn.unbind(0)
    one, other = x.reshape(*x.shape[:-1], x.shape[-1] // 2, 2).unbind(-1)
    return torch.stack([one * cos - other * sin, one * sin + other * cos], dim=-1).flatten(-2).to(x.dtype)
