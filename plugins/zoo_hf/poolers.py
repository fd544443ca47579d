"""Pooling of token features to one feature a caption.

Padding never counts, and a row of padding alone is pooled over all of it. open_clip 3.3.0 agrees on the mean and on
both ways to take the first token. Its maximum does not run: it masks with integers, and would mask the wrong tokens.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from zoo_core.nn.pooling import masked_mean

__all__ = ["PoolType", "pool"]

PoolType = Literal["mean", "max", "cls", "cls-hidden"]


def pool(pool_type: PoolType, tokens: Tensor, mask: Tensor, pooler_output: Tensor | None) -> Tensor:
    """Pool tokens.

    Args:
        pool_type: which way.
        tokens: last hidden states `[B, L, C]`.
        mask: bool `[B, L]`, False at padding.
        pooler_output: what the encoder's own pooler made of the first token `[B, C]`, where it has one.

    Returns:
        features `[B, C]`.
    """
    match pool_type:
        case "mean":
            return masked_mean(tokens, _some(mask))
        case "max":
            return tokens.masked_fill(~_some(mask).unsqueeze(-1), float("-inf")).amax(dim=1)
        case "cls":
            return tokens[:, 0] if pooler_output is None else pooler_output
        case "cls-hidden":
            return tokens[:, 0]


def _some(mask: Tensor) -> Tensor:
    """Keep all of a row that keeps nothing, since the mean or maximum of nothing is no number."""
    return mask | ~mask.any(dim=1, keepdim=True)
