"""Multi-head attention with the options of a `BlockConfig`.

Published checkpoints hold the query, key and value projections as bare parameters, `attn.in_proj_weight` and the like.
Here each is an `nn.Linear` that is called as one, so that quantization, LoRA and hooks reach it. State dicts still
carry the published names, on the way out and in. A projection that something else has replaced loads by its own names.
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


class MultiHead(nn.Module):
    """Base of both kinds of attention: heads, their norms and scales, published names of projections.

    Args:
        projections: the linear layers of queries, keys and values, by their names here.
        published: published name -> names of the parameters whose rows it joins.

    The other arguments are those of `Attention`.
    """

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
    def in_proj_weight(self) -> Tensor | None:
        """Matrices of all projections, as published; None where they are published one by one."""
        return self.published_tensor("in_proj_weight")

    @property
    def in_proj_bias(self) -> Tensor | None:
        """Biases of all projections, as published."""
        return self.published_tensor("in_proj_bias")

    def published_tensor(self, name: str) -> Tensor | None:
        """Return the parameters that stand in a published entry; None where the projections have other entries."""
        names = self.published.get(name)
        return None if names is None else joined(self, names)

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
        """Return `[B, N, C]` for queries `[B, H, N, C / H]`, and keys and values `[B, H, M, C / H]`."""
        batch, heads, tokens, head_width = query.shape
        if self.ln_q is not None and self.ln_k is not None:
            query, key = self.ln_q(query), self.ln_k(key)
        scale = None  # (C / H) ** -0.5
        if self.logit_scale is not None:
            factor = self.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp().to(query.dtype)
            query, key, scale = F.normalize(query, dim=-1) * factor, F.normalize(key, dim=-1), 1.0
        # [B, H, N, C / H]
        x = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal, scale=scale)
        if self.head_scale is not None:
            x = x * self.head_scale
        x = x.transpose(1, 2).reshape(batch, tokens, heads * head_width)  # [B, N, C]
        return self.out_proj(x if self.ln_inner is None else self.ln_inner(x))

    def __setattr__(self, name: str, value: Any) -> None:
        """Set projections by their published names."""
        names = self.__dict__.get("published", {}).get(name)
        if names is not None and isinstance(value, Tensor):
            put_joined(self, name, names, value)
        else:
            super().__setattr__(name, value)

    def state_dict(self, *args: Any, prefix: str = "", **kwargs: Any) -> Any:
        """Return the state dict with the published names of the projections."""
        state: dict[str, Any] = super().state_dict(*args, prefix=prefix, **kwargs)  # pyright: ignore[reportUnknownMemberType]
        join_entries(state, prefix, self.published, self)
        return state

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for published, names in self.published.items():
            if prefix + published in state_dict:
                problem = split_entry(state_dict, prefix, published, names, self)
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
        """Return the linear layers of queries, keys and values."""
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
        query, key, value = self.split_heads(self.in_proj(x), 3)  # [B, H, N, C / H]
        if cache is not None:
            return self.attend(query, *cache.append(key, value), mask=cache.causal_mask(x.shape[1]))
        return self.attend(query, key, value, causal, mask)

    def forward_row(self, x: Tensor, row: Tensor, causal: bool = False, mask: Tensor | None = None) -> Tensor:
        """Like `forward`, but only for token `row[b]` of each sequence: `[B, C]`."""
        query, key, value = self.split_heads(self.in_proj(x), 3)  # [B, H, N, C / H]
        batch = torch.arange(x.shape[0], device=x.device)
        query = query[batch, :, row][:, :, None]  # [B, H, 1, C / H]
        if mask is not None and mask.shape[2] > 1:
            mask = mask.expand(x.shape[0], -1, -1, -1)[batch, :, row][:, :, None]  # [B, 1, 1, N]
        elif mask is None and causal:
            mask = (torch.arange(x.shape[1], device=x.device) <= row[:, None])[:, None, None]
        return self.attend(query, key, value, mask=mask)[:, 0]


class CrossAttention(MultiHead):
    """Attention of one sequence to another; published names are those of `nn.MultiheadAttention`.

    Args:
        width: channels of the tokens that attend, and of the result.
        heads: number of heads; divides `width`.
        options: norms and scales; none where None.
        norm_eps: epsilon of the norms.
        context_width: channels of the context; `width` where None.
    """

    q_proj: nn.Linear
    k_proj: nn.Linear
    v_proj: nn.Linear

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
        """Return the linear layers of queries, keys and values."""
        return [self.q_proj, self.k_proj, self.v_proj]

    @property
    def q_proj_weight(self) -> Tensor | None:
        """Matrix of the queries, as published; None where `in_proj_weight` holds it."""
        return self.published_tensor("q_proj_weight")

    @property
    def k_proj_weight(self) -> Tensor | None:
        """Matrix of the keys, as published; None where `in_proj_weight` holds it."""
        return self.published_tensor("k_proj_weight")

    @property
    def v_proj_weight(self) -> Tensor | None:
        """Matrix of the values, as published; None where `in_proj_weight` holds it."""
        return self.published_tensor("v_proj_weight")

    def keys_and_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values `[B, H, N, C / H]` of the context `[B, N, context_width]`."""
        (key,), (value,) = self.split_heads(self.k_proj(context)), self.split_heads(self.v_proj(context))
        return key, value

    def look(self, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Like `forward`, but with the keys and values of the context."""
        (query,) = self.split_heads(self.q_proj(x))
        return self.attend(query.expand(key.shape[0], -1, -1, -1), key, value)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Return `[B, L, C]` for tokens `[B, L, C]` or `[1, L, C]` that attend to `[B, N, context_width]`."""
        return self.look(x, *self.keys_and_values(context))


def split_heads(x: Tensor, heads: int, parts: int) -> tuple[Tensor, ...]:
    """Return the parts of `[B, N, parts * C]`, such as query, key and value, each as `[B, heads, N, C / heads]`."""
    batch, tokens, width = x.shape
    return x.view(batch, tokens, parts, heads, width // parts // heads).permute(2, 0, 3, 1, 4).unbind(0)
