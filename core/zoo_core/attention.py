"""Multi-head self-attention with the norms and scales that a `BlockConfig` asks for.

Published checkpoints fuse the query, key and value projections into bare parameters `attn.in_proj_weight` and
`attn.in_proj_bias`. Here they are an `nn.Linear` named `in_proj`, so that quantization, LoRA and hooks reach them;
state dicts still carry the published names, on the way out and on the way in.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_core.block_config import BlockConfig
from zoo_core.key_values import KeyValues
from zoo_core.layers import LayerNorm
from zoo_core.state_dicts import rename_entry

__all__ = ["Attention"]

MAX_LOGIT_SCALE = math.log(100)
"""Largest logarithm of the factor of cosine attention (Liu et al. 2022)."""


class FusedProjection(nn.Linear):
    """Query, key and value in one `nn.Linear`, saved under the published name `..._weight`, not `....weight`."""

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        own: dict[str, Any] = {}
        super()._save_to_state_dict(own, prefix, keep_vars)  # pyright: ignore[reportUnknownMemberType]
        for key, value in own.items():
            destination[f"{prefix.removesuffix('.')}_{key.removeprefix(prefix)}"] = value


class Attention(nn.Module):
    """Multi-head self-attention through `scaled_dot_product_attention`.

    Args:
        width: channels in and out.
        heads: number of heads; divides `width`.
        options: norms and scales; none where None.
        norm_eps: epsilon of the norms.
    """

    def __init__(self, width: int, heads: int, options: BlockConfig | None = None, norm_eps: float = 1e-5) -> None:
        super().__init__()
        options = options or BlockConfig()
        self.heads = heads
        self.in_proj = FusedProjection(width, 3 * width)
        self.ln_q = LayerNorm(width // heads, eps=norm_eps) if options.qk_norm else nn.Identity()
        self.ln_k = LayerNorm(width // heads, eps=norm_eps) if options.qk_norm else nn.Identity()
        self.logit_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10))) if options.scaled_cosine else None
        self.head_scale = nn.Parameter(torch.ones(heads, 1, 1)) if options.scale_heads else None
        self.ln_inner = LayerNorm(width, eps=norm_eps) if options.scale_attn_inner else nn.Identity()
        self.out_proj = nn.Linear(width, width)

    @property
    def in_proj_weight(self) -> Tensor:
        """The fused `[3 * width, width]` matrix, under its published name."""
        return self.in_proj.weight

    @property
    def in_proj_bias(self) -> Tensor:
        """The fused `[3 * width]` bias, under its published name."""
        return self.in_proj.bias

    def forward(
        self, x: Tensor, causal: bool = False, mask: Tensor | None = None, memory: KeyValues | None = None
    ) -> Tensor:
        """Attend among the tokens of `x`.

        Args:
            x: tokens `[B, N, C]`.
            causal: hide later tokens from earlier ones; where there is a mask, the mask has to do that.
            mask: bool `[B, 1, N or 1, N]`, true where a token (third dimension) may look at one (fourth).
            memory: of the tokens before those of `x`, which look at them too; takes up those of `x`. Causal, and
                without a mask.

        Returns:
            `[B, N, C]`.
        """
        query, key, value = self._split_heads(self.in_proj(x), 3)
        if memory is not None:
            return self._attend(query, *memory.append(key, value), mask=_after(memory, x.shape[1], x.device))
        return self._attend(query, key, value, causal, mask)

    def _split_heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """Return the parts of `[B, N, parts * C]`, each as `[B, H, N, C / H]`."""
        batch, tokens, width = x.shape
        return x.view(batch, tokens, parts, self.heads, width // parts // self.heads).permute(2, 0, 3, 1, 4).unbind(0)

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, causal: bool = False, mask: Tensor | None = None
    ) -> Tensor:
        """Return `[B, N, C]` for queries `[B, H, N, C / H]` and as many keys and values as there are."""
        batch, heads, tokens, head_width = query.shape
        query, key = self.ln_q(query), self.ln_k(key)
        scale = None  # that is, (C / H) ** -0.5
        if self.logit_scale is not None:
            factor = self.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp().to(query.dtype)
            query, key, scale = F.normalize(query, dim=-1) * factor, F.normalize(key, dim=-1), 1.0
        x = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal, scale=scale)
        if self.head_scale is not None:
            x = x * self.head_scale
        return self.out_proj(self.ln_inner(x.transpose(1, 2).reshape(batch, tokens, heads * head_width)))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for name in ("weight", "bias"):
            if f"{prefix}in_proj_{name}" in state_dict:
                rename_entry(state_dict, f"{prefix}in_proj_{name}", f"{prefix}in_proj.{name}", self)
        super()._load_from_state_dict(state_dict, prefix, *args)  # pyright: ignore[reportUnknownMemberType]


def _after(memory: KeyValues, tokens: int, device: torch.device) -> Tensor | None:
    """Return the causal mask `[tokens, len(memory)]` of the last tokens in `memory`; None where they see all."""
    if tokens == 1:
        return None
    seen = torch.ones(tokens, len(memory), dtype=torch.bool, device=device)
    return seen.tril(len(memory) - tokens)
