"""Tiny architectures whose weights other libraries know too: CLIP's and SigLIP's."""

from __future__ import annotations

from typing import Any

import zoo
from support import peer

Json = dict[str, Any]
CLIP: Json = {
    "model": "clip",
    "embed_dim": 16,
    "vision": {"tower": "vit", "image_size": 32, "patch_size": 16, "width": 32, "layers": 2, "head_width": 16},
    "text": {"tower": "clip-transformer", "context_length": 12, "width": 24, "heads": 2, "layers": 2},
    "tokenizer": {"type": "clip-bpe"},
    "preprocess": {"type": "image"},
}
SIGLIP: Json = {
    "model": "custom-text-clip",
    "embed_dim": 32,
    "init_logit_bias": -10,
    "vision": {
        "tower": "timm",
        "name": "vit_base_patch16_siglip_224",
        "image_size": 32,
        "pool": "map",
        "proj": "none",
        "kwargs": {"embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 3.5, "act_layer": "gelu_tanh"},
    },
    "text": CLIP["text"]
    | {"vocab_size": 600, "norm_eps": 1e-6, "causal": False, "pool_type": "last", "proj_bias": True},
    "tokenizer": {"type": "hf", "name": "./nowhere", "vocab_size": 600, "cleaning": "canonicalize"},
    "preprocess": {"type": "image", "mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"},
}


def changed(change: Json, base: Json) -> Json:
    """Return a config with a change laid over it, section by section."""
    made = dict(base)
    for key, value in change.items():
        made[key] = changed(value, made[key]) if isinstance(value, dict) and isinstance(made.get(key), dict) else value
    return made


def model_of(config: Json) -> Any:
    return peer.randomized(zoo.build(config)).eval()
