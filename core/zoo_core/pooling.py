"""How tokens become one feature: at the end of the text, or by attention of learned queries."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo_core.errors import InputError
from zoo_core.layers import LayerNorm

__all__ = ["AttentionalPooler", "pool_at_eos", "pool_at_largest_id"]


def pool_at_largest_id(x: Tensor, text: Tensor) -> Tensor:
    """Return of tokens `[B, L, C]` those at the first largest id of each row of `text` `[B, L]`, as `[B, C]`.

    It is CLIP's end of text wherever that is the last id of the vocabulary (Radford et al. 2021).
    """
    return x[torch.arange(x.shape[0], device=x.device), text.argmax(dim=-1)]


def pool_at_eos(x: Tensor, text: Tensor, eos_id: int) -> Tensor:
    """Return of tokens `[B, L, C]` those at the first `eos_id` of each row of `text` `[B, L]`, as `[B, C]`.

    A row without one has no feature: it is NaN where looking would stall a device or break a graph.

    Raises:
        InputError: a row on the CPU has no `eos_id`.
    """
    ends = text == eos_id
    missing = ~ends.any(dim=-1)  # [B]
    if text.device.type == "cpu" and not torch.compiler.is_compiling() and bool(missing.any()):
        raise InputError(
            f"row {int(missing.int().argmax())} of the token ids has no end-of-text id {eos_id}, where the feature is "
            "read; tokenize with model.tokenizer, which keeps it when it shortens a text"
        )
    pooled = x[torch.arange(x.shape[0], device=x.device), ends.int().argmax(dim=-1)]
    return pooled.masked_fill(missing[:, None], torch.nan)


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
        self.attn = nn.MultiheadAttention(width, heads, kdim=context_width, vdim=context_width, batch_first=True)
        self.ln_q = LayerNorm(width, eps=norm_eps)
        self.ln_k = LayerNorm(context_width, eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Return `[B, queries, width]` of tokens `[B, N, context_width]`."""
        context = self.ln_k(x)
        queries = self.ln_q(self.query).to(x.dtype).expand(x.shape[0], -1, -1)
        return self.attn(queries, context, context, need_weights=False)[0]
