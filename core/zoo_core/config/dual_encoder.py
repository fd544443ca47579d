"""Configs of models with a logit scale: of images and text, or of any modalities (no torch here)."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from zoo_core.config import (
    Config,
    EmbedDim,
    ModelConfig,
    PreprocessConfig,
    Section,
    TextTowerConfig,
    TokenizerConfig,
    VisionTowerConfig,
)

__all__ = ["ConstructorArguments", "DualEncoderConfig", "LogitBias", "LogitScale", "LogitScaledConfig"]

LogitScale = Annotated[float, Field(ge=-20, le=20)]
LogitBias = Annotated[float, Field(ge=-1000, le=1000)]


class LogitScaledConfig(ModelConfig):
    """Base of the configs of models that derive from `zoo_core.models.dual_encoder.DualEncoder`."""

    init_logit_scale: LogitScale = math.log(1 / 0.07)
    """Initial logarithm of the factor between cosines and logits."""
    init_logit_bias: LogitBias | None = None
    """Initial offset of the logits; the model has no logit bias where null."""
    nonscalar_logit_scale: bool = False
    """Give logit scale and bias the shape [1] instead of [] in outputs and state dicts."""

    def own_parameter_count(self) -> int:
        """Count the logit scale and, if there is one, the logit bias."""
        return 1 if self.init_logit_bias is None else 2


class DualEncoderConfig(LogitScaledConfig):
    """Base of the configs of models of images and text."""

    vision: Annotated[VisionTowerConfig, Section(VisionTowerConfig)]
    """The vision tower."""
    text: Annotated[TextTowerConfig, Section(TextTowerConfig)]
    """The text tower."""
    tokenizer: Annotated[TokenizerConfig, Section(TokenizerConfig)]
    """The tokenizer that the text tower was or will be trained with."""
    preprocess: Annotated[PreprocessConfig, Section(PreprocessConfig)]
    """How images become tensors."""


class ConstructorArguments(Config):
    """The plain arguments of constructors, so that a wrong one is refused as a wrong key is."""

    embed_dim: EmbedDim
    quick_gelu: bool
    init_logit_scale: LogitScale
    init_logit_bias: LogitBias | None
    nonscalar_logit_scale: bool
    output_dict: bool = True
