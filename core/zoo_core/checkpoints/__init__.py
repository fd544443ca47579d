"""Checkpoint formats: what a plugin implements to read and write one."""

from zoo_core.checkpoints.format import (
    ITEM_SIZES,
    CheckpointFormat,
    Conversion,
    ConvertedSource,
    TensorInfo,
    TensorSource,
    shown,
)

__all__ = [
    "ITEM_SIZES",
    "CheckpointFormat",
    "Conversion",
    "ConvertedSource",
    "TensorInfo",
    "TensorSource",
    "shown",
]
