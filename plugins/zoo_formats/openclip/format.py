"""Folders of open_clip.

`open_clip_config.json` stands beside weights whose names are those of our models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo_core.checkpoints import CheckpointFormat, Conversion, TensorInfo
from zoo_core.checkpoints.rules import Rule, Table
from zoo_formats.openclip.json_config import OpenClipFormatConfig
from zoo_formats.openclip.read_config import import_open_clip
from zoo_formats.openclip.write_config import hub_file

__all__ = ["OpenClip"]

CONFIG = "open_clip_config.json"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


class OpenClip(CheckpointFormat):
    """The format of open_clip: nothing is renamed."""

    name = "open_clip"
    library = "open_clip"
    weights_name = "open_clip_model.safetensors"

    def __init__(self, config: OpenClipFormatConfig) -> None:
        pass

    def recognises(self, entries: Mapping[str, TensorInfo]) -> bool:
        """Leave weights as they are: they need no conversion."""
        return False

    def plan(self, entries: Mapping[str, TensorInfo]) -> Sequence[Conversion]:
        """Return every entry as itself."""
        return Table([Rule("{...}", "{...}")]).plan(entries)

    def architecture(self, folder: Path) -> Mapping[str, Any] | None:
        """Return what `open_clip_config.json` states."""
        return import_open_clip(folder / CONFIG) if (folder / CONFIG).is_file() else None

    def holds_tokenizer(self, folder: Path) -> bool:
        """Tell so where the config names a tokenizer of the Hub, as open_clip reads folders."""
        if not any((folder / name).is_file() for name in TOKENIZER):
            return False
        return (self.architecture(folder) or {}).get("tokenizer", {}).get("type") == "hf"

    def export(self, entries: Mapping[str, TensorInfo], config: Mapping[str, Any]) -> Sequence[Conversion]:
        """Return every entry as itself."""
        return self.plan(entries)

    def files(self, config: Mapping[str, Any]) -> Mapping[str, bytes]:
        """Return `open_clip_config.json`."""
        return {CONFIG: (json.dumps(hub_file(config), indent=2) + "\n").encode()}
