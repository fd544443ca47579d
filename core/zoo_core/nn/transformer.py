"""Pre-norm transformer of the vision and text towers.

It is the encoder of Vaswani et al. 2017 as Radford et al. 2021 changed it. The plain block is CLIP's; a `BlockConfig`
adds norms and scales to it. Parameter names are the published ones.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]

from zoo_core.config.block import BlockConfig
from zoo_core.nn.attention import Attention, CrossAttention
from zoo_core.nn.inference_forms import InferenceForm, recast
from zoo_core.nn.kv_cache import KVCache, LayerKVCache
from zoo_core.nn.layers import (
    QUICK_FACTOR,
    Activation,
    InPlaceGELU,
    LayerNorm,
    LayerScale,
    QuickGELU,
    activation_layer,
)

__all__ = [
    "Activation",
    "Attention",
    "LayerNorm",
    "LayerScale",
    "QuickGELU",
    "ResidualBlock",
    "Transformer",
    "activation_layer",
    "draw_weights",
]


class ResidualBlock(nn.Module):
    """Attention and a two-layer perceptron, each behind a norm and added to its input.

    Args:
        width: channels.
        heads: attention heads.
        hidden: channels between the two layers of the perceptron.
        activation: between them.
        ls_init_value: initial LayerScale of both branches; none where None.
        norm_eps: epsilon of the norms.
        options: norms and scales inside the block; none where None.
    """

    attention_class: type[Attention] | type[CrossAttention] = Attention

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        activation: Activation = "gelu",
        ls_init_value: float | None = None,
        norm_eps: float = 1e-5,
        options: BlockConfig | None = None,
    ) -> None:
        super().__init__()
        options = options or BlockConfig()
        self.ln_1 = LayerNorm(width, eps=norm_eps)
        self.attn = self.attention_class(width, heads, options, norm_eps)
        self.ln_attn = LayerNorm(width, eps=norm_eps) if options.scale_attn else nn.Identity()
        self.ls_1 = nn.Identity() if ls_init_value is None else LayerScale(width, ls_init_value)
        self.ln_2 = LayerNorm(width, eps=norm_eps)
        layers = OrderedDict[str, nn.Module](c_fc=nn.Linear(width, hidden), gelu=activation_layer(activation))
        if options.scale_fc:
            layers["ln"] = LayerNorm(hidden, eps=norm_eps)
        self.mlp = nn.Sequential(layers | {"c_proj": nn.Linear(hidden, width)})
        self.ls_2 = nn.Identity() if ls_init_value is None else LayerScale(width, ls_init_value)

    def forward(
        self, x: Tensor, causal: bool = False, mask: Tensor | None = None, cache: LayerKVCache | None = None
    ) -> Tensor:
        """Transform tokens `[B, N, C]`; `causal`, `mask` and `cache` are those of `Attention`."""
        x = x + self.ls_1(self.ln_attn(self.attn(self.ln_1(x), causal, mask, cache)))
        return x + self.ls_2(self.mlp(self.ln_2(x)))

    def forward_row(self, x: Tensor, row: Tensor, causal: bool = False, mask: Tensor | None = None) -> Tensor:
        """Like `forward`, but only for token `row[b]` of each sequence: `[B, C]`."""
        token = x[torch.arange(x.shape[0], device=x.device), row]  # [B, C]
        attended = cast("Attention", self.attn).forward_row(self.ln_1(x), row, causal, mask)
        token = token + self.ls_1(self.ln_attn(attended))
        return token + self.ls_2(self.mlp(self.ln_2(token)))

    def get_weight_dtype(self) -> torch.dtype:
        """Return the dtype that the matrices of the block have."""
        return cast("Any", self.mlp).c_fc.weight.dtype

    def inference_forms(self) -> Iterable[InferenceForm]:
        """Offer the block that writes over its own tensors; of one dtype, since writing over one does not promote."""
        if type(self) is ResidualBlock and len({parameter.dtype for parameter in self.parameters()}) == 1:
            yield InferenceForm("activations and sums in place", lambda: _in_place(self))


class InPlaceBlock(ResidualBlock):
    """A residual block that writes activations and sums over tensors of its own, where no gradient needs them."""

    def forward(
        self, x: Tensor, causal: bool = False, mask: Tensor | None = None, cache: LayerKVCache | None = None
    ) -> Tensor:
        """Transform tokens `[B, N, C]`, which stay as they are; see `ResidualBlock`."""
        if x.requires_grad:
            return super().forward(x, causal, mask, cache)
        x = self.ls_1(self.ln_attn(self.attn(self.ln_1(x), causal, mask, cache))).add_(x)
        return self.ls_2(self.mlp(self.ln_2(x))).add_(x)


class Transformer(nn.Module):
    """A stack of residual blocks.

    Attributes:
        resblocks: the blocks, first to last.
        grad_checkpointing: recompute each block in the backward pass instead of keeping its activations.
    """

    batch_first = True

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        mlp_ratio: float = 4.0,
        activation: Activation = "gelu",
        ls_init_value: float | None = None,
        norm_eps: float = 1e-5,
        options: BlockConfig | None = None,
    ) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.width = width
        self.grad_checkpointing = False
        self.resblocks = nn.ModuleList(
            ResidualBlock(width, heads, hidden, activation, ls_init_value, norm_eps, options) for _ in range(layers)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights of all blocks anew."""
        draw_weights(self.blocks(), self.width)

    @property
    def layers(self) -> int:
        """Number of blocks."""
        return len(self.resblocks)

    def get_cast_dtype(self) -> torch.dtype:
        """Return the dtype that the matrices of the blocks have."""
        return self.blocks()[0].get_weight_dtype()

    def blocks(self) -> Sequence[ResidualBlock]:
        """Return the blocks, typed."""
        return cast("Sequence[ResidualBlock]", self.resblocks)

    def forward(self, x: Tensor, causal: bool = False, mask: Tensor | None = None) -> Tensor:
        """Transform tokens `[B, N, C]`; `causal` and `mask` are those of `Attention`."""
        for block in self.blocks():
            x = self._run(block, x, causal, mask)
        return x

    def forward_blocks(self, x: Tensor, causal: bool = False, mask: Tensor | None = None) -> Iterator[Tensor]:
        """Yield the output of each block; the arguments are those of `forward`."""
        for block in self.blocks():
            x = self._run(block, x, causal, mask)
            yield x

    def _run(self, block: ResidualBlock, x: Tensor, causal: bool, mask: Tensor | None) -> Tensor:
        if self.grad_checkpointing and torch.is_grad_enabled():
            return cast("Tensor", checkpoint(block, x, causal, mask, use_reentrant=False))
        return block(x, causal, mask)

    def forward_row(self, x: Tensor, row: Tensor, causal: bool = False, mask: Tensor | None = None) -> Tensor:
        """Like `forward`, but only for token `row[b]` of each sequence: `[B, C]`.

        The last block attends from that token only, and transforms it only.
        """
        *blocks, last = self.blocks()
        for block in blocks:
            x = block(x, causal, mask)
        return last.forward_row(x, row, causal, mask)

    def decode_step(self, x: Tensor, cache: KVCache) -> Tensor:
        """Transform the tokens `[B, n, C]` that follow those in `cache`, and add them to it. It is causal."""
        for number, block in enumerate(self.blocks()):
            x = block(x, cache=cache.block(number))
        return x


def _in_place(block: ResidualBlock) -> InPlaceBlock:
    """Return the form of a block that writes over its own tensors; QuickGELU becomes one pass over them, not three."""
    form = recast(block, InPlaceBlock)
    mlp = cast("Any", form.mlp)
    if isinstance(mlp.gelu, nn.GELU):
        mlp.gelu = InPlaceGELU(mlp.gelu.approximate)
    elif isinstance(mlp.gelu, QuickGELU) and not hasattr(mlp, "ln") and mlp.c_fc.weight.dtype == torch.float32:
        mlp.c_fc = _scaled(mlp.c_fc, QUICK_FACTOR, bias=True)  # x sigmoid(a x) = silu(a x) / a
        mlp.gelu = nn.SiLU(inplace=True)
        mlp.c_proj = _scaled(mlp.c_proj, 1 / QUICK_FACTOR, bias=False)
    return form


def _scaled(linear: nn.Linear, factor: float, *, bias: bool) -> nn.Linear:
    """Return a copy whose matrix, and bias if asked for, is multiplied."""
    copy = nn.Linear(linear.in_features, linear.out_features, device="meta")
    copy.weight = nn.Parameter(linear.weight.detach() * factor, requires_grad=False)
    copy.bias = nn.Parameter(linear.bias.detach() * factor, requires_grad=False) if bias else linear.bias
    return copy


def draw_weights(blocks: Sequence[ResidualBlock], width: int) -> None:
    """Draw the weights of a stack as Radford et al. 2021 do: by width, and by depth where a branch joins the rest."""
    attention_std = width**-0.5
    residual_std = attention_std * (2 * len(blocks)) ** -0.5
    perceptron_std = (2 * width) ** -0.5
    for block in blocks:
        mlp = cast("Mapping[str, nn.Linear]", dict(block.mlp.named_children()))
        for layer, std in (
            *((projection, attention_std) for projection in block.attn.projections()),
            (block.attn.out_proj, residual_std),
            (mlp["c_fc"], perceptron_std),
            (mlp["c_proj"], residual_std),
        ):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)
