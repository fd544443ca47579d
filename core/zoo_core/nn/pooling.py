"""Pooling of tokens: at the end of text, mean, learned queries."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo_core.errors import InputError
from zoo_core.nn.attention import CrossAttention
from zoo_core.nn.layers import LayerNorm
from zoo_core.nn.tracing import has_values

__all__ = ["AttentionalPooler", "masked_mean", "pool_at_eos", "pool_at_largest_id"]


def pool_at_largest_id(x: Tensor, text: Tensor) -> Tensor:
    """Return the tokens `[B, C]` of `x` `[B, L, C]` at the first largest id of each row of `text` `[B, L]`.

    It is CLIP's end of text wherever that is the last id of the vocabulary (Radford et al. 2021).
    """
    return x[torch.arange(x.shape[0], device=x.device), text.argmax(dim=1)]


def pool_at_eos(x: Tensor, text: Tensor, eos_id: int) -> Tensor:
    """Return the tokens `[B, C]` of `x` `[B, L, C]` at the first `eos_id` of each row of `text` `[B, L]`.

    A row without one has no feature: it is NaN where looking would stall a device or break a graph.

    Raises:
        InputError: a row on the CPU has no `eos_id`.
    """
    ends = text == eos_id
    missing = ~ends.any(dim=1)  # [B]
    if text.device.type == "cpu" and has_values(text) and bool(missing.any()):
        raise InputError(
            f"row {int(missing.int().argmax())} of the token ids has no end-of-text id {eos_id}, where the feature is "
            "read; tokenize with model.tokenizer, which keeps it when it shortens a text"
        )
    pooled = x[torch.arange(x.shape[0], device=x.device), ends.int().argmax(dim=1)]
    return pooled.masked_fill(missing[:, None], torch.nan)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean `[B, C]` of the tokens `[B, L, C]` where `mask`, bool `[B, L]`, is true; each row has one."""
    exact = torch.promote_types(x.dtype, torch.float32)  # a sum of a long row exceeds float16
    total = (x * mask.unsqueeze(-1)).sum(dim=1, dtype=exact)
    return (total / mask.sum(dim=1, keepdim=True)).to(x.dtype)


class AttentionalPooler(nn.Module):
    """Learned queries that attend to tokens (Lee et al. 2019; Yu et al. 2022, CoCa).

    Args:
        width: channels of the queries and of what comes out.
        context_width: channels of the tokens.
        heads: number of heads; divides `width`.
        queries: how many there are.
        norm_eps: epsilon of the norms of queries and tokens.
    """

    def __init__(self, width: int, context_width: int, heads: int, queries: int, norm_eps: float = 1e-5) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(queries, width))
        self.attn = CrossAttention(width, heads, norm_eps=norm_eps, context_width=context_width)
        self.ln_q = LayerNorm(width, eps=norm_eps)
        self.ln_k = LayerNorm(context_width, eps=norm_eps)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the projections as `nn.MultiheadAttention` does, which draws them as one matrix where they are one."""
        gain = 0.5**0.5 if self.attn.k_proj_weight is None else 1.0
        for projection in self.attn.projections():
            nn.init.xavier_uniform_(projection.weight, gain)
            nn.init.zeros_(projection.bias)
        nn.init.zeros_(self.attn.out_proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return `[B, queries, width]` of tokens `[B, N, context_width]`."""
        return self.attn(self.ln_q(self.query).to(x.dtype)[None], self.ln_k(x))
