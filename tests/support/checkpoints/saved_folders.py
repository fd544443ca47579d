"""Saved folders, and careless changes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

import zoo

TINY: dict[str, Any] = {
    "model": "clip",
    "embed_dim": 16,
    "vision": {"tower": "vit", "image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
    "text": {"tower": "clip-transformer", "context_length": 16, "width": 32, "heads": 2, "layers": 2},
    "tokenizer": {"type": "clip-bpe"},
    "preprocess": {"type": "image"},
}


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], None] | None = None) -> None:
    """Change the weights and make the digests fit, as a careless tool would."""
    from zoo.saved.manifest import digest_of, file_digests

    if change is not None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    origin = json.loads((folder / "zoo.json").read_text())
    origin["files"] = file_digests(folder)
    origin["digest"] = digest_of(origin)
    (folder / "zoo.json").write_text(json.dumps(origin))


def with_tokenizer(folder: Path, **options: Any) -> Any:
    """Return a model whose tokenizer is one of transformers, in a folder of its own."""
    from transformers import AutoTokenizer

    size = max(AutoTokenizer.from_pretrained(folder).get_vocab().values()) + 1
    return zoo.build(
        TINY
        | {
            "text": TINY["text"] | {"vocab_size": size, "pool_type": "last"},
            "tokenizer": {"type": "hf", "name": str(folder), "vocab_size": size, **options},
        }
    )
