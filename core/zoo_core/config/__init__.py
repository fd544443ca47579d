"""Configs: YAML and mappings as strict, frozen data."""

from zoo_core.config.base import Config
from zoo_core.config.components import (
    TOKENIZER_FOLDER,
    CheckpointFormatConfig,
    ComponentConfig,
    LossConfig,
    PreprocessConfig,
    ProcessorConfig,
    TextTowerConfig,
    TokenIds,
    TokenizerConfig,
    TowerConfig,
    VisionTowerConfig,
)
from zoo_core.config.fields import EmbedDim, Ratio, Size
from zoo_core.config.model import ModelConfig
from zoo_core.config.section import Section

__all__ = [
    "TOKENIZER_FOLDER",
    "CheckpointFormatConfig",
    "ComponentConfig",
    "Config",
    "EmbedDim",
    "LossConfig",
    "ModelConfig",
    "PreprocessConfig",
    "ProcessorConfig",
    "Ratio",
    "Section",
    "Size",
    "TextTowerConfig",
    "TokenIds",
    "TokenizerConfig",
    "TowerConfig",
    "VisionTowerConfig",
]
