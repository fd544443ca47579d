"""CLIP as OpenAI published it.

The story of the table: there is next to none, since this is the format that every later CLIP took over. Three numbers
of the architecture stand among the weights. The file does not say that all of these weights were trained with
quick_gelu, and shapes do not tell.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from zoo_core.checkpoints import CheckpointFormat, Conversion, TensorInfo
from zoo_core.checkpoints.rules import Rule, Table
from zoo_formats.config import OpenAIConfig

__all__ = ["OpenAI"]

NUMBERS = ("input_resolution", "context_length", "vocab_size")
"""Sizes that OpenAI's archives hold as tensors; the shapes of the weights say the same."""


class OpenAI(CheckpointFormat):
    """The format of OpenAI's files."""

    name = "OpenAI CLIP"

    def __init__(self, config: OpenAIConfig) -> None:
        pass

    def recognises(self, entries: Mapping[str, TensorInfo]) -> bool:
        """Tell by the three numbers, which no other library keeps."""
        return all(number in entries and not entries[number].shape for number in NUMBERS)

    def plan(self, entries: Mapping[str, TensorInfo]) -> Sequence[Conversion]:
        """Return the renaming of every entry to itself, but for the numbers."""
        return Table([Rule("{...}", "{...}")]).plan({key: info for key, info in entries.items() if key not in NUMBERS})

    def ignores(self, entries: Mapping[str, TensorInfo]) -> Collection[str]:
        """Return the numbers."""
        return NUMBERS

    def facts(self, entries: Mapping[str, TensorInfo]) -> Mapping[str, Any]:
        """Return the activation."""
        return {"vision.activation": "quick_gelu", "text.activation": "quick_gelu"}
