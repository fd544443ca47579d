"""The small layers of transformer blocks: activations, layer norm, LayerScale."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["Activation", "LayerNorm", "LayerScale", "QuickGELU", "activation_layer"]

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
