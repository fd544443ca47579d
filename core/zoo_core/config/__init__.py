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
from zoo_core.config.training import CallbackConfig, DatasetConfig, EvaluatorConfig, OptimizerConfig

__all__ = [
    "TOKENIZER_FOLDER",
    "CallbackConfig",
    "CheckpointFormatConfig",
    "ComponentConfig",
    "Config",
    "DatasetConfig",
    "EmbedDim",
    "EvaluatorConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
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
