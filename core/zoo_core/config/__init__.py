"""Configs: YAML and mappings as strict, frozen data."""

from zoo_core.config.components import (
    TOKENIZER_FOLDER,
    CheckpointFormatConfig,
    ComponentConfig,
    Config,
    EmbedDim,
    LossConfig,
    ModelConfig,
    PreprocessConfig,
    Ratio,
    Section,
    Size,
    TextTowerConfig,
    TokenIds,
    TokenizerConfig,
    TowerConfig,
    VisionTowerConfig,
)

__all__ = [
    "TOKENIZER_FOLDER",
    "CheckpointFormatConfig",
    "ComponentConfig",
    "Config",
    "EmbedDim",
    "LossConfig",
    "ModelConfig",
    "PreprocessConfig",
    "Ratio",
    "Section",
    "Size",
    "TextTowerConfig",
    "TokenIds",
    "TokenizerConfig",
    "TowerConfig",
    "VisionTowerConfig",
]
