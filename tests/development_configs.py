"""What configs of open_clip's development branch (89fb801) say; no release holds them."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

DEVELOPMENT: dict[str, Json] = {
    "moderntext-ViT-B-32-256": {
        "embed_dim": 512,
        "vision_cfg": {"image_size": 256, "layers": 12, "width": 768, "patch_size": 32},
        "text_cfg": {
            "text_arch": "modern",
            "context_length": 256,
            "variable_text": True,
            "vocab_size": 50260,
            "width": 512,
            "heads": 8,
            "layers": 12,
            "mlp_ratio": 2.6666667,
            "pad_id": 50258,
            "bos_id": 50259,
            "eos_id": 50257,
            "pool_type": "eos",
            "attention_mode": "causal",
            "pos_embed": "rope",
            "mlp_type": "swiglu",
            "norm_type": "rmsnorm",
            "norm_eps": 1e-06,
            "qk_norm": False,
            "attn_gated": True,
            "tokenizer_type": "tiktoken",
            "tiktoken_name": "r50k_base",
        },
    },
    "gte-modernbert-base-ViT-B-32-256": {
        "embed_dim": 512,
        "vision_cfg": {"image_size": 256, "layers": 12, "width": 768, "patch_size": 32},
        "text_cfg": {
            "context_length": 256,
            "variable_text": True,
            "pad_id": 50283,
            "hf_model_name": "Alibaba-NLP/gte-modernbert-base",
            "hf_tokenizer_name": "Alibaba-NLP/gte-modernbert-base",
            "hf_pooler_type": "cls_pooler",
            "hf_proj_type": "linear",
            "hf_model_config": {"max_position_embeddings": 256},
        },
    },
}
