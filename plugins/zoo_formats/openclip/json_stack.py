"""Keys that both native towers of open_clip have."""

from __future__ import annotations

from typing import Literal

from zoo_core.config import Config

__all__ = ["StackCfg"]


class ActKwargs(Config):
    """Options of GELU."""

    approximate: Literal["none", "tanh"] = "none"


class NormKwargs(Config):
    """Options of the layer norms."""

    eps: float = 1e-5


class StackCfg(Config):
    """What both native towers name alike."""

    mlp_ratio: float = 4.0
    ls_init_value: float | None = None
    act_kwargs: ActKwargs | None = None
    norm_kwargs: NormKwargs | None = None
    output_tokens: bool = False
    block_type: Literal["default", "custom"] | None = None
    qk_norm: bool = False
    scaled_cosine_attn: bool = False
    scale_heads: bool = False
    scale_attn_inner: bool = False
    scale_attn: bool = False
    scale_fc: bool = False
