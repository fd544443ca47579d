"""Folders as transformers publishes SigLIP 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from support.checkpoints.foreign import WORDS

Json = dict[str, Any]
SIZES: Json = {"intermediate_size": 60, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT: Json = SIZES | {"hidden_size": 24, "vocab_size": WORDS, "max_position_embeddings": 12, "projection_size": 32}
VISION: Json = SIZES | {"hidden_size": 32, "patch_size": 8, "num_patches": 25}
IMAGES: Json = {
    "image_processor_type": "Siglip2ImageProcessor",
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "resample": 2,
    "patch_size": 8,
    "max_num_patches": 20,
}


def siglip2_folder(folder: Path) -> Any:
    """Fill a folder as transformers does, and return its model."""
    import transformers

    model = transformers.Siglip2Model(transformers.Siglip2Config(text_config=TEXT, vision_config=VISION)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGES))
    return model
