"""Initial weights of the modern text transformer.

They are those of open_clip's development branch. With norms before the branches, weights are drawn by width, and by
depth where a branch joins the residual stream (Radford et al. 2019, 2021). A sandwich undoes factors of depth, so all
weights are drawn alike there (OLMo et al. 2024).
"""

from __future__ import annotations

from torch import nn

from zoo_text.modern.block import AttentionPool, ModernBlock
from zoo_text.modern.config import ModernTextConfig

__all__ = ["draw_block", "draw_pool"]

SANDWICH_STD = 0.02
GATED = 1.22
"""A product of channels and gates varies less than what GELU lets through; this makes up for it."""


def draw_block(block: ModernBlock, config: ModernTextConfig) -> None:
    """Draw the weights of a block; biases are zero, but for that of the gate, which starts it open."""
    flat = config.norm_placement == "sandwich"
    attention_std = SANDWICH_STD if flat else config.width**-0.5
    hidden_std = SANDWICH_STD if flat else (2 * config.width) ** -0.5
    branch_std = SANDWICH_STD if flat else attention_std * (2 * config.layers) ** -0.5
    if config.mlp == "swiglu" and not flat:
        hidden_std *= GATED
    into, out = (layer for layer in block.mlp.modules() if isinstance(layer, nn.Linear))
    draw_linear(block.attn.qkv, attention_std)
    draw_linear(into, hidden_std)
    for layer in (block.attn.proj, out):
        draw_linear(layer, 0.0 if config.zero_init_residual else branch_std)
    if block.attn.gate is not None:
        draw_linear(block.attn.gate, attention_std, bias=1.0)


def draw_pool(pool: AttentionPool, config: ModernTextConfig) -> None:
    """Draw the weights of a pool."""
    nn.init.normal_(pool.query, std=config.width**-0.5)
    for layer in (pool.q, pool.kv):
        draw_linear(layer, config.width**-0.5)


def draw_linear(layer: nn.Linear, std: float, bias: float = 0.0) -> None:
    """Draw a layer's weights, or make them zero where `std` is, and set its bias, if there is one."""
    nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
        nn.init.constant_(layer.bias, bias)
