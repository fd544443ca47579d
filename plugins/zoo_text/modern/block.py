"""Parts of the modern text transformer: attention, residual block, attention pooling.

With value residuals (Zhou et al. 2024), the values of the first block go through all blocks beside the tokens.
Parameter names are those of open_clip's development branch.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_core.nn.attention import split_heads
from zoo_core.nn.kv_cache import LayerKVCache
from zoo_core.nn.layers import LayerNorm, LayerScale, RMSNorm, SquaredReLU, SwiGLU
from zoo_core.nn.rotary import rotate
from zoo_text.modern.config import ModernTextConfig

__all__ = ["AttentionPool", "ModernBlock", "norm_layer"]


def norm_layer(config: ModernTextConfig, width: int | None = None) -> LayerNorm | RMSNorm:
    """Return a new norm of the config's kind, over its width where None."""
    kind = RMSNorm if config.norm == "rmsnorm" else LayerNorm
    return kind(width or config.width, eps=config.norm_eps)


def _head_norm(config: ModernTextConfig) -> nn.Module:
    return norm_layer(config, config.width // config.heads) if config.qk_norm else nn.Identity()


class ModernAttention(nn.Module):
    """Multi-head self-attention with rotary positions, a gate and a share in the first block's values.

    Args:
        config: of the tower.
        first: whether it is that of the first block, whose values the others share in.
    """

    def __init__(self, config: ModernTextConfig, *, first: bool) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.value_residual = config.value_residual
        self.qkv = nn.Linear(width, 3 * width, bias=config.attention_bias)
        self.q_norm = _head_norm(config)
        self.k_norm = _head_norm(config)
        self.gate = nn.Linear(width, width, bias=config.gate_has_bias) if config.attn_gated else None
        shares = config.value_residual and not first
        self.vr_lambda = nn.Parameter(torch.full((1,), 0.5)) if shares else None
        self.proj = nn.Linear(width, width, bias=config.attention_bias)

    def forward(
        self,
        x: Tensor,
        rotary: Tensor | None = None,
        causal: bool = False,
        mask: Tensor | None = None,
        first_value: Tensor | None = None,
        cache: LayerKVCache | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend among the tokens of `x`.

        Args:
            x: tokens `[B, N, C]`.
            rotary: `zoo_core.nn.rotary.rotation` of their positions; no position embedding where None.
            causal, mask, cache: those of `zoo_core.nn.attention.Attention`.
            first_value: values `[B, H, N, C / H]` of the first block, for the blocks behind it.

        Returns:
            `[B, N, C]`, and the values of the first block; None without value residuals.
        """
        query, key, value = split_heads(self.qkv(x), self.heads, 3)  # [B, H, N, C / H]
        if self.value_residual and first_value is None:
            first_value = value
        if self.vr_lambda is not None and first_value is not None:
            value = torch.lerp(first_value, value, self.vr_lambda.to(value.dtype))
        query, key = self.q_norm(query), self.k_norm(key)
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        if cache is not None:
            key, value = cache.append(key, value)
            causal, mask = False, cache.causal_mask(x.shape[1])
        heads = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
        mixed = heads.transpose(1, 2).reshape(x.shape)  # [B, N, C]
        if self.gate is not None:
            mixed = mixed * self.gate(x).sigmoid()
        return self.proj(mixed), first_value


class ModernBlock(nn.Module):
    """Attention and a perceptron, each behind a norm (and before one, in a sandwich) and added to its input.

    The arguments are those of `ModernAttention`.
    """

    def __init__(self, config: ModernTextConfig, *, first: bool) -> None:
        super().__init__()
        self.norm1 = norm_layer(config)
        self.attn = ModernAttention(config, first=first)
        self.norm1_post = _post_norm(config)
        self.ls1 = _layer_scale(config)
        self.norm2 = norm_layer(config)
        if config.mlp == "swiglu":
            self.mlp = SwiGLU(config.width, config.hidden, bias=config.mlp_bias)
        else:
            self.mlp = nn.Sequential(
                OrderedDict(
                    c_fc=nn.Linear(config.width, config.hidden, bias=config.mlp_bias),
                    act=nn.GELU() if config.mlp == "gelu" else SquaredReLU(),
                    c_proj=nn.Linear(config.hidden, config.width, bias=config.mlp_bias),
                )
            )
        self.norm2_post = _post_norm(config)
        self.ls2 = _layer_scale(config)

    def forward(
        self,
        x: Tensor,
        rotary: Tensor | None = None,
        causal: bool = False,
        mask: Tensor | None = None,
        first_value: Tensor | None = None,
        cache: LayerKVCache | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Transform tokens `[B, N, C]`; the arguments and what is returned are those of `ModernAttention`."""
        attended, first_value = self.attn(self.norm1(x), rotary, causal, mask, first_value, cache)
        x = x + self.ls1(self.norm1_post(attended))
        return x + self.ls2(self.norm2_post(self.mlp(self.norm2(x)))), first_value


class AttentionPool(nn.Module):
    """A learned query that attends to the tokens of a row (Lee et al. 2019)."""

    def __init__(self, config: ModernTextConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.query = nn.Parameter(torch.empty(1, 1, width))
        self.q = nn.Linear(width, width, bias=config.attention_bias)
        self.kv = nn.Linear(width, 2 * width, bias=config.attention_bias)
        self.q_norm = _head_norm(config)
        self.k_norm = _head_norm(config)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return `[B, C]` of the tokens `[B, L, C]` where `mask`, bool `[B, L]`, is true."""
        (query,) = split_heads(self.q(self.query.to(x.dtype)), self.heads, 1)  # [1, H, 1, C / H]
        key, value = split_heads(self.kv(x), self.heads, 2)  # [B, H, L, C / H]
        query = self.q_norm(query).expand(x.shape[0], -1, -1, -1)
        heads = F.scaled_dot_product_attention(query, self.k_norm(key), value, attn_mask=mask[:, None, None, :])
        return heads.flatten(1)


def _post_norm(config: ModernTextConfig) -> nn.Module:
    return norm_layer(config) if config.norm_placement == "sandwich" else nn.Identity()


def _layer_scale(config: ModernTextConfig) -> nn.Module:
    return nn.Identity() if config.ls_init_value is None else LayerScale(config.width, config.ls_init_value)
