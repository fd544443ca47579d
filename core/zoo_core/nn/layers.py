"""Small layers of transformer blocks, and the blocks that a network repeats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "QUICK_FACTOR",
    "Activation",
    "InPlaceGELU",
    "LayerNorm",
    "LayerScale",
    "QuickGELU",
    "RMSNorm",
    "SquaredReLU",
    "SwiGLU",
    "activation_layer",
    "repeated_blocks",
]

Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]

QUICK_FACTOR = 1.702
"""Slope of the sigmoid in QuickGELU."""


class QuickGELU(nn.Module):
    """`x * sigmoid(1.702 x)`: the approximation of GELU that OpenAI's CLIP weights were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply to every element."""
        return x * torch.sigmoid(QUICK_FACTOR * x)


class InPlaceGELU(nn.GELU):
    """GELU over its own input where no gradient needs it: the memory of a new tensor costs more than the function."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply to every element."""
        if input.requires_grad:
            return super().forward(input)
        return torch.ops.aten.gelu_(input, approximate=self.approximate)


def activation_layer(name: Activation) -> nn.Module:
    """Return a new module for an activation's name."""
    match name:
        case "gelu":
            return nn.GELU()
        case "gelu_tanh":
            return nn.GELU(approximate="tanh")
        case "quick_gelu":
            return QuickGELU()


class SquaredReLU(nn.Module):
    """`max(x, 0) ** 2` (So et al. 2021, Primer)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply to every element."""
        return F.relu(x).square()


class SwiGLU(nn.Module):
    """A perceptron whose hidden channels are gated by as many others (Shazeer 2020).

    The first half of the outputs of `w12` are the channels, the second half their gates.

    Args:
        width: channels in and out.
        hidden: gated channels between the two layers.
        bias: whether the layers have one.
    """

    def __init__(self, width: int, hidden: int, bias: bool = True) -> None:
        super().__init__()
        self.w12 = nn.Linear(width, 2 * hidden, bias=bias)
        self.w3 = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Transform the last dimension."""
        channels, gates = self.w12(x).chunk(2, dim=-1)
        return self.w3(channels * F.silu(gates))


class LayerNorm(nn.LayerNorm):
    """Layer norm that works in the dtype of its weights and returns the dtype of its input.

    A model with bfloat16 matrices and float32 norms thus normalises in float32, as the field does.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise the last dimension."""
        weight = self.weight
        normed = F.layer_norm(input.to(weight.dtype), self.normalized_shape, weight, self.bias, self.eps)
        return normed.to(input.dtype)


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm (Zhang & Sennrich 2019); as to dtypes, it does as `LayerNorm`."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class LayerScale(nn.Module):
    """A learned factor for each channel of a residual branch (Touvron et al. 2021)."""

    def __init__(self, width: int, init_value: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), init_value))

    def forward(self, x: Tensor) -> Tensor:
        """Scale the last dimension."""
        return x * self.gamma


def repeated_blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the entries of the outermost stacks in `module`: lists and sequences of two or more of one class.

    Single layers, such as those of `torch.nn`, make no stack.
    """
    if isinstance(module, nn.ModuleList | nn.Sequential) and len(module) > 1:
        classes = {type(child) for child in module}
        first = module[0]
        if len(classes) == 1 and any(True for _ in first.children()) and any(True for _ in first.parameters()):
            yield from module
            return
    for child in module.children():
        yield from repeated_blocks(child)
