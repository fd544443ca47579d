"""The smallest CLIPs that have every part, for tests of what they do beyond their numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from support.peer import captions, images, randomized, tiny_arguments
from zoo import CLIP, CustomTextCLIP

KINDS = [CLIP, CustomTextCLIP]
ARCHITECTURE: dict[str, Any] = {
    "model": "clip",
    "embed_dim": 16,
    "vision": {
        "tower": "vit",
        "image_size": 32,
        "patch_size": 16,
        "width": 32,
        "layers": 2,
        "head_width": 16,
    },
    "text": {
        "tower": "clip-transformer",
        "context_length": 12,
        "vocab_size": 1024,
        "width": 24,
        "heads": 2,
        "layers": 2,
    },
    "tokenizer": {"type": "clip-bpe", "vocab_size": 1024},
    "preprocess": {"type": "image"},
}
TEXT_PARTS = ("transformer", "token_embedding", "positional_embedding", "ln_final", "text_projection")


def tiny(kind: Any = CLIP, **changes: Any) -> Any:
    return randomized(kind(**tiny_arguments(**changes))).eval()


def outputs(model: Any) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        return model.encode_image(images(model)), model.encode_text(captions(model))


def assert_same_outputs(model: Any, other: Any) -> None:
    for one, two in zip(outputs(model), outputs(other), strict=True):
        assert torch.equal(one, two)
