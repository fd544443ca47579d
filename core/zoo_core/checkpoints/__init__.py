"""Checkpoints: named tensors, and the formats that a plugin reads and writes."""

from zoo_core.checkpoints.format import CheckpointFormat, Conversion, ConvertedSource
from zoo_core.checkpoints.tensors import ITEM_SIZES, TensorInfo, TensorSource, shown

__all__ = [
    "ITEM_SIZES",
    "CheckpointFormat",
    "Conversion",
    "ConvertedSource",
    "TensorInfo",
    "TensorSource",
    "shown",
]
