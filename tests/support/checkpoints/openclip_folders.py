"""Folders as open_clip publishes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from support import peer


def open_clip_folder(folder: Path, tokenizer: str | None = None, vocab_size: int = 49_408) -> Any:
    """Fill a folder as open_clip does, and return its model."""
    import open_clip

    arguments = peer.tiny_arguments(quick_gelu=True)
    arguments["text_cfg"]["vocab_size"] = vocab_size
    theirs = peer.randomized(open_clip.CLIP(**arguments)).eval()
    if tokenizer is not None:
        arguments["text_cfg"]["hf_tokenizer_name"] = tokenizer
    images = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear", "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": arguments, "preprocess_cfg": images}))
    torch.save(theirs.state_dict(), folder / "open_clip_pytorch_model.bin")
    return theirs
