"""The pre-norm transformer that the vision and the text tower share (Vaswani et al. 2017; Radford et al. 2021).

Published checkpoints fuse the query, key and value projections into bare parameters `attn.in_proj_weight` and
`attn.in_proj_bias`. Here they are an `nn.Linear` named `in_proj`, so that quantization, LoRA and hooks reach them;
state dicts still carry the published names, on the way out and on the way in.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]

from zoo_core.errors import InputError
from zoo_core.state_dicts import rename_entry

__all__ = [
    "Activation",
    "Attention",
    "LayerNorm",
    "LayerScale",
    "QuickGELU",
    "ResidualBlock",
    "Transformer",
    "activation_layer",
    "take_indices",
]

Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]


class QuickGELU(nn.Module):
    """`x * sigmoid(1.702 x)`: the approximation of GELU that OpenAI's CLIP weights were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply to every element."""
        return x * torch.sigmoid(1.702 * x)


def activation_layer(name: Activation) -> nn.Module:
    """Return a new module for an activation's name."""
    match name:
        case "gelu":
            return nn.GELU()
        case "gelu_tanh":
            return nn.GELU(approximate="tanh")
        case "quick_gelu":
            return QuickGELU()


class LayerNorm(nn.LayerNorm):
    """Layer norm that works in the dtype of its weights and returns the dtype of its input.

    A model with bfloat16 matrices and float32 norms thus normalises in float32, as the field does.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return super().forward(input.to(self.weight.dtype)).to(input.dtype)


class LayerScale(nn.Module):
    """A learned factor for each channel of a residual branch (Touvron et al. 2021)."""

    def __init__(self, width: int, init_value: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), init_value))

    def forward(self, x: Tensor) -> Tensor:
        """Scale the last dimension."""
        return x * self.gamma


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
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = FusedProjection(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    @property
    def in_proj_weight(self) -> Tensor:
        """The fused `[3 * width, width]` matrix, under its published name."""
        return self.in_proj.weight

    @property
    def in_proj_bias(self) -> Tensor:
        """The fused `[3 * width]` bias, under its published name."""
        return self.in_proj.bias

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        """Attend among the tokens of `x` `[B, N, C]`; `causal` hides later tokens from earlier ones."""
        batch, tokens, width = x.shape
        qkv = self.in_proj(x).view(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, H, N, C / H]
        x = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
        return self.out_proj(x.transpose(1, 2).reshape(batch, tokens, width))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for name in ("weight", "bias"):
            if f"{prefix}in_proj_{name}" in state_dict:
                rename_entry(state_dict, f"{prefix}in_proj_{name}", f"{prefix}in_proj.{name}", self)
        super()._load_from_state_dict(state_dict, prefix, *args)  # pyright: ignore[reportUnknownMemberType]


class ResidualBlock(nn.Module):
    """Attention and a two-layer perceptron, each behind a norm and added to its input.

    Args:
        width: channels.
        heads: attention heads.
        hidden: channels between the two layers of the perceptron.
        activation: between them.
        ls_init_value: initial LayerScale of both branches; none where None.
        norm_eps: epsilon of the norms.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        activation: Activation = "gelu",
        ls_init_value: float | None = None,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(width, eps=norm_eps)
        self.attn = Attention(width, heads)
        self.ls_1 = nn.Identity() if ls_init_value is None else LayerScale(width, ls_init_value)
        self.ln_2 = LayerNorm(width, eps=norm_eps)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(width, hidden), gelu=activation_layer(activation), c_proj=nn.Linear(hidden, width)
            )
        )
        self.ls_2 = nn.Identity() if ls_init_value is None else LayerScale(width, ls_init_value)

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        """Transform tokens `[B, N, C]`."""
        x = x + self.ls_1(self.attn(self.ln_1(x), causal))
        return x + self.ls_2(self.mlp(self.ln_2(x)))


class Transformer(nn.Module):
    """A stack of residual blocks.

    Attributes:
        resblocks: the blocks, first to last.
        grad_checkpointing: recompute each block in the backward pass instead of keeping its activations.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        mlp_ratio: float = 4.0,
        activation: Activation = "gelu",
        ls_init_value: float | None = None,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.width = width
        self.grad_checkpointing = False
        self.resblocks = nn.ModuleList(
            ResidualBlock(width, heads, hidden, activation, ls_init_value, norm_eps) for _ in range(layers)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as Radford et al. 2021 do: by width, and by depth where a branch joins the residual."""
        attention_std = self.width**-0.5
        residual_std = attention_std * (2 * len(self.resblocks)) ** -0.5
        perceptron_std = (2 * self.width) ** -0.5
        for block in self.blocks():
            mlp = cast("Mapping[str, nn.Linear]", dict(block.mlp.named_children()))
            for layer, std in (
                (block.attn.in_proj, attention_std),
                (block.attn.out_proj, residual_std),
                (mlp["c_fc"], perceptron_std),
                (mlp["c_proj"], residual_std),
            ):
                nn.init.normal_(layer.weight, std=std)
                nn.init.zeros_(layer.bias)

    def blocks(self) -> Sequence[ResidualBlock]:
        """Return the blocks, typed."""
        return cast("Sequence[ResidualBlock]", self.resblocks)

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        """Transform tokens `[B, N, C]`."""
        return self.forward_intermediates(x, (), causal=causal)[0]

    def forward_intermediates(
        self, x: Tensor, take: Iterable[int], *, causal: bool = False, stop_early: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """Transform tokens `[B, N, C]` and keep the outputs of some blocks.

        Args:
            x: tokens.
            take: numbers of the blocks to keep, from 0.
            causal: hide later tokens from earlier ones.
            stop_early: leave out the blocks after the last one kept.

        Returns:
            the last output `[B, N, C]`, and the kept ones in block order.
        """
        wanted = frozenset(take)
        last = max(wanted) if stop_early and wanted else len(self.resblocks) - 1
        kept: list[Tensor] = []
        for number, block in enumerate(self.blocks()[: last + 1]):
            if self.grad_checkpointing and torch.is_grad_enabled():
                x = cast("Tensor", checkpoint(block, x, causal, use_reentrant=False))
            else:
                x = block(x, causal)
            if number in wanted:
                kept.append(x)
        return x, kept


def take_indices(indices: int | Sequence[int] | None, count: int) -> tuple[int, ...]:
    """Return the block numbers that `indices` stands for.

    Args:
        indices: None for all, n for the last n, or block numbers (negative ones count from the end).
        count: how many blocks there are.

    Raises:
        InputError: a number is out of range.
    """
    if indices is None:
        return tuple(range(count))
    if isinstance(indices, int):
        if not 1 <= indices <= count:
            raise InputError(f"indices: the last {indices} of {count} blocks do not exist; allowed: 1 to {count}")
        return tuple(range(count - indices, count))
    for index in indices:
        if not -count <= index < count:
            raise InputError(f"indices: there is no block {index}; allowed: {-count} to {count - 1}")
    return tuple(index % count for index in indices)
