"""Folders as transformers publishes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from support.checkpoints.foreign import WORDS

Json = dict[str, Any]


def images(size: int = 32) -> Tensor:
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))


def captions(length: int = 12, end: int = WORDS - 1) -> Tensor:
    """Return ids with an end at different places, and other tokens behind it."""
    ids = torch.randint(3, WORDS - 1, (3, length), generator=torch.Generator().manual_seed(0))
    for row, place in enumerate((2, 7, length - 1)):
        ids[row, place] = end
    return ids


def pooled(output: Any) -> Tensor:
    """Return the features that transformers gives: a tensor in older versions, in an output in newer ones."""
    return output if isinstance(output, Tensor) else output.pooler_output


TEXT: Json = {
    "vocab_size": WORDS,
    "hidden_size": 24,
    "intermediate_size": 60,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 12,
    "eos_token_id": WORDS - 1,
    "bos_token_id": WORDS - 2,
}
VISION: Json = {
    "hidden_size": 32,
    "intermediate_size": 100,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
}
IMAGES: dict[str, Json] = {
    "clip": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32}, "do_center_crop": True}
    | {"crop_size": {"height": 32, "width": 32}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]},
    "siglip": {"image_processor_type": "SiglipImageProcessor", "size": {"height": 32, "width": 32}}
    | {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3},
}


def randomized(model: Any) -> Any:
    """Draw weights anew that no first value hides: biases, scales and embeddings included."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def transformers_model(kind: str, text: Json | None = None, vision: Json | None = None) -> Any:
    import transformers

    text, vision = TEXT | (text or {}), VISION | (vision or {})
    if kind == "clip":
        sizes = {"projection_dim": 16}
        config = transformers.CLIPConfig(text_config=text | sizes, vision_config=vision | sizes, **sizes)
        return randomized(transformers.CLIPModel(config))
    config = transformers.SiglipConfig(text_config=text | {"projection_size": 32}, vision_config=vision)
    return randomized(transformers.SiglipModel(config))


def saved(model: Any, folder: Path, kind: str, **options: Any) -> Path:
    """Save a model of transformers as its users do, with its preprocessing and a tokenizer."""
    model.save_pretrained(folder, **options)
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGES[kind]))
    return folder
