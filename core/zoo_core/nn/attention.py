"""Multi-head attention, of tokens among themselves or to others, with the options of a `BlockConfig`.

Published checkpoints hold the query, key and value projections as bare parameters, `attn.in_proj_weight` and the like.
Here each is an `nn.Linear` that is called as one, so that quantization, LoRA and hooks reach it; state dicts still
carry the published names, on the way out and in. A projection that something else has replaced keeps its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_core.config.block import BlockConfig
from zoo_core.nn.kv_cache import LayerKVCache
from zoo_core.nn.layers import LayerNorm
from zoo_core.nn.state_dict import join_entries, joined, put_joined, split_entry

__all__ = ["Attention", "CrossAttention", "split_heads"]

MAX_LOGIT_SCALE = math.log(100)
"""Largest logarithm of the factor of cosine attention (Liu et al. 2022)."""


def _published(name: str) -> property:
    """Return a property that shows what has this published name, which is None where the projections have others."""

    def shown(attention: MultiHead) -> Tensor | None:
        own = attention.published.get(name)
        return None if own is None else joined(attention, own)

    return property(shown, doc=f"`{name}` as published checkpoints hold it.")


class MultiHead(nn.Module):
    """What both kinds of attention share: heads, their norms and scales, and the published names of projections.

    Args:
        projections: the linear layers of queries, keys and values, by their names here.
        published: published name -> names of the parameters that stand in it, one under the other.

    The other arguments are those of `Attention`.
    """

    in_proj_weight = _published("in_proj_weight")
    in_proj_bias = _published("in_proj_bias")
    batch_first = True

    def __init__(
        self,
        width: int,
        heads: int,
        options: BlockConfig | None,
        norm_eps: float,
        *,
        projections: Mapping[str, nn.Linear],
        published: Mapping[str, Sequence[str]],
    ) -> None:
        super().__init__()
        options = options or BlockConfig()
        self.heads = heads
        self.embed_dim = width
        self.published = published
        for name, projection in projections.items():
            self.add_module(name, projection)
        self.ln_q = LayerNorm(width // heads, eps=norm_eps) if options.qk_norm else None
        self.ln_k = LayerNorm(width // heads, eps=norm_eps) if options.qk_norm else None
        self.logit_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10))) if options.scaled_cosine else None
        self.head_scale = nn.Parameter(torch.ones(heads, 1, 1)) if options.scale_heads else None
        self.ln_inner = LayerNorm(width, eps=norm_eps) if options.scale_attn_inner else None
        self.out_proj = nn.Linear(width, width)

    @property
    def num_heads(self) -> int:
        """Number of heads, as `nn.MultiheadAttention` calls it."""
        return self.heads

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.embed_dim // self.heads

    def split_heads(self, x: Tensor, parts: int = 1) -> tuple[Tensor, ...]:
        """Return the parts of `[B, N, parts * C]`, each as `[B, H, N, C / H]`."""
        return split_heads(x, self.heads, parts)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, causal: bool = False, mask: Tensor | None = None
    ) -> Tensor:
        """Return `[B, N, C]` for queries `[B, H, N, C / H]` and as many keys and values as there are."""
        batch, heads, tokens, head_width = query.shape
        if self.ln_q is not None and self.ln_k is not None:
            query, key = self.ln_q(query), self.ln_k(key)
        scale = None  # that is, (C / H) ** -0.5
        if self.logit_scale is not None:
            factor = self.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp().to(query.dtype)
            query, key, scale = F.normalize(query, dim=-1) * factor, F.normalize(key, dim=-1), 1.0
        x = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal, scale=scale)
        if self.head_scale is not None:
            x = x * self.head_scale
        x = x.transpose(1, 2).reshape(batch, tokens, heads * head_width)
        return self.out_proj(x if self.ln_inner is None else self.ln_inner(x))

    def __setattr__(self, name: str, value: Any) -> None:
        """Set projections by their published names."""
        own = self.__dict__.get("published", {}).get(name)
        if own is not None and isinstance(value, Tensor):
            put_joined(self, name, own, value)
        else:
            super().__setattr__(name, value)

    def state_dict(self, *args: Any, prefix: str = "", **kwargs: Any) -> Any:
        """Return the state dict with the published names of the projections."""
        state: dict[str, Any] = super().state_dict(*args, prefix=prefix, **kwargs)  # pyright: ignore[reportUnknownMemberType]
        join_entries(state, prefix, self.published, self)
        return state

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for published, own in self.published.items():
            if prefix + published in state_dict:
                problem = split_entry(state_dict, prefix, published, own, self)
                if problem is not None:
                    args[-1].append(problem)
        super()._load_from_state_dict(state_dict, prefix, *args)  # pyright: ignore[reportUnknownMemberType]


class Attention(MultiHead):
    """Multi-head self-attention through `scaled_dot_product_attention`.

    Args:
        width: channels in and out.
        heads: number of heads; divides `width`.
        options: norms and scales; none where None.
        norm_eps: epsilon of the norms.
    """

    in_proj: nn.Linear

    def __init__(self, width: int, heads: int, options: BlockConfig | None = None, norm_eps: float = 1e-5) -> None:
        fused = {"in_proj": nn.Linear(width, 3 * width)}
        names = {"in_proj_weight": ["in_proj.weight"], "in_proj_bias": ["in_proj.bias"]}
        super().__init__(width, heads, options, norm_eps, projections=fused, published=names)

    def projections(self) -> Sequence[nn.Linear]:
        """Return what gives queries, keys and values."""
        return [self.in_proj]

    def forward(
        self, x: Tensor, causal: bool = False, mask: Tensor | None = None, cache: LayerKVCache | None = None
    ) -> Tensor:
        """Attend among the tokens of `x`.

        Args:
            x: tokens `[B, N, C]`.
            causal: hide later tokens from earlier ones; where there is a mask, the mask has to do that.
            mask: bool `[B, 1, N or 1, N]`, true where a token (third dimension) may look at one (fourth).
            cache: keys and values of the tokens before those of `x`, which attend to them too and are added to it. It
                is causal and needs no mask.

        Returns:
            `[B, N, C]`.
        """
        query, key, value = self.split_heads(self.in_proj(x), 3)
        if cache is not None:
            return self.attend(query, *cache.append(key, value), mask=cache.causal_mask(x.shape[1]))
        return self.attend(query, key, value, causal, mask)

    def forward_row(self, x: Tensor, row: Tensor, causal: bool = False, mask: Tensor | None = None) -> Tensor:
        """Return of what `forward` gives the token `row` `[B]` of each sequence alone, as `[B, C]`."""
        query, key, value = self.split_heads(self.in_proj(x), 3)
        one = torch.arange(x.shape[0], device=x.device)
        query = query[one, :, row][:, :, None]  # [B, H, 1, C / H]
        if mask is not None and mask.shape[2] > 1:
            mask = mask.expand(x.shape[0], -1, -1, -1)[one, :, row][:, :, None]
        elif mask is None and causal:
            mask = (torch.arange(x.shape[1], device=x.device) <= row[:, None])[:, None, None]
        return self.attend(query, key, value, mask=mask)[:, 0]


class CrossAttention(MultiHead):
    """Attention of one sequence to another; published names are those of `nn.MultiheadAttention`.

    Args:
        width: channels of the tokens that look, and of what comes out.
        heads: number of heads; divides `width`.
        options: norms and scales; none where None.
        norm_eps: epsilon of the norms.
        context_width: channels of the tokens that are looked at; `width` where None.
    """

    q_proj: nn.Linear
    k_proj: nn.Linear
    v_proj: nn.Linear
    q_proj_weight = _published("q_proj_weight")
    k_proj_weight = _published("k_proj_weight")
    v_proj_weight = _published("v_proj_weight")

    def __init__(
        self,
        width: int,
        heads: int,
        options: BlockConfig | None = None,
        norm_eps: float = 1e-5,
        context_width: int | None = None,
    ) -> None:
        inputs = {"q_proj": width, "k_proj": context_width or width, "v_proj": context_width or width}
        separate = {name: nn.Linear(size, width) for name, size in inputs.items()}
        names = {"in_proj_bias": [f"{name}.bias" for name in separate]}
        if context_width in (None, width):
            names["in_proj_weight"] = [f"{name}.weight" for name in separate]
        else:
            names |= {f"{name}_weight": [f"{name}.weight"] for name in separate}
        super().__init__(width, heads, options, norm_eps, projections=separate, published=names)

    def projections(self) -> Sequence[nn.Linear]:
        """Return what gives queries, keys and values."""
        return [self.q_proj, self.k_proj, self.v_proj]

    def keys_and_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values `[B, H, N, C / H]` of what is looked at, `[B, N, context_width]`."""
        (key,), (value,) = self.split_heads(self.k_proj(context)), self.split_heads(self.v_proj(context))
        return key, value

    def look(self, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return what `forward` does, of the keys and values of what is looked at."""
        (query,) = self.split_heads(self.q_proj(x))
        return self.attend(query.expand(key.shape[0], -1, -1, -1), key, value)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Return `[B, L, C]` for tokens `[B, L, C]` (`[1, L, C]` for all rows) that look at `[B, N, context_width]`."""
        return self.look(x, *self.keys_and_values(context))


def split_heads(x: Tensor, heads: int, parts: int) -> tuple[Tensor, ...]:
    """Return the parts of `[B, N, parts * C]`, such as query, key and value, each as `[B, heads, N, C / heads]`."""
    batch, tokens, width = x.shape
    return x.view(batch, tokens, parts, heads, width // parts // heads).permute(2, 0, 3, 1, 4).unbind(0)
