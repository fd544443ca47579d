"""The smallest architecture with every part, and changes of it."""

from __future__ import annotations

import copy
from typing import Any

TINY: dict[str, Any] = {
    "model": "clip",
    "embed_dim": 32,
    "vision": {"tower": "vit", "image_size": 32, "patch_size": 8, "width": 64, "head_width": 32, "layers": 2},
    "text": {
        "tower": "clip-transformer",
        "context_length": 16,
        "vocab_size": 600,
        "width": 64,
        "heads": 2,
        "layers": 2,
    },
    "tokenizer": {"type": "clip-bpe", "vocab_size": 600},
    "preprocess": {"type": "image"},
}


def changed(**sections: Any) -> dict[str, Any]:
    """Return the tiny architecture with some keys of some sections replaced."""
    data = copy.deepcopy(TINY)
    for key, value in sections.items():
        if isinstance(value, dict) and isinstance(data.get(key), dict):
            data[key] |= value
        else:
            data[key] = value
    return data
