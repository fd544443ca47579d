"""`zoo import`: every option of open_clip's configs that no file of the peer uses means here what it means there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from support import peer
from support.checkpoints.openclip_configs import MODEL, Import, Json, importer
from zoo.transfer.import_config import import_architecture


@pytest.fixture
def imported(tmp_path: Path) -> Import:
    return importer(tmp_path)


def tiny(vision: Json | None = None, text: Json | None = None, **top: Any) -> Json:
    """Return the smallest config of the peer that has every part, with changes."""
    return {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "layers": 2, "head_width": 16} | (vision or {}),
        "text_cfg": {"context_length": 12, "width": 24, "heads": 2, "layers": 2} | (text or {}),
        **top,
    }


BLOCK = {"scale_heads": True, "scale_attn_inner": True, "scale_attn": True, "scale_fc": True, "qk_norm": True}
RESNET = {"layers": [1, 2, 1, 1], "width": 16, "image_size": 64, "patch_size": None}
OPTIONS = {
    "a rectangle": tiny({"image_size": [64, 32], "patch_size": [16, 8]}),
    "sines": tiny({"pos_embed_type": "sin_cos_2d"}),
    "LayerScale and ratios": tiny({"ls_init_value": 0.1, "mlp_ratio": 2.5}, {"ls_init_value": 0.2, "mlp_ratio": 3}),
    "options of a block": tiny(BLOCK, BLOCK),
    "a block without its options": tiny({"block_type": "default", "scale_fc": True}, {"block_type": "custom"}),
    "GELU by tanh": tiny({"act_kwargs": {"approximate": "tanh"}}, {"act_kwargs": {"approximate": "none"}}),
    "epsilon": tiny({"norm_kwargs": {"eps": 0.1}}, {"norm_kwargs": {"eps": 0.2}}),
    "quick_gelu": tiny(quick_gelu=True),
    "CoCa's pool": tiny(
        {"attentional_pool": True, "attn_pooler_queries": 5, "attn_pooler_heads": 4, "pool_type": "avg"}
    ),
    "a parallel pool": tiny(
        {"width": 16, "head_width": 8, "attentional_pool": "parallel", "attn_pooler_heads": 2, "pool_type": "avg"}
    ),
    "a cascade of pools": tiny(
        {
            "width": 16,
            "head_width": 8,
            "attentional_pool": "cascade",
            "attn_pooler_heads": 2,
            "final_ln_after_pool": True,
        }
    ),
    "the mean of patches": tiny({"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True}),
    "an end of text": tiny(text={"pool_type": "eos", "eos_id": 49_407}),
    "the first token": tiny(text={"pool_type": "first", "no_causal_mask": True}, custom_text=True),
    "a class token": tiny(text={"embed_cls": True, "pool_type": "eos", "pad_id": 0}, custom_text=True),
    "a biased projection": tiny(text={"proj_bias": True}, custom_text=True),
    "no projection": tiny(text={"proj_type": "none", "proj_bias": True, "width": 16}, custom_text=True),
    "a logit scale and bias": tiny(init_logit_scale=1, init_logit_bias=-2.5, nonscalar_logit_scale=True),
    "a residual network": tiny(RESNET, quick_gelu=True),
    "a backbone": tiny({"timm_model_name": "resnet10t", "timm_proj": "mlp", "timm_proj_bias": True}, custom_text=True),
    "a backbone's head": tiny({"timm_model_name": "resnet10t", "timm_proj": None, "timm_proj_bias": True}),
    "a pool that attends": tiny({"timm_model_name": "resnet10t", "timm_pool": "rot_attn", "timm_proj": ""}),
}


@pytest.mark.parametrize("config", OPTIONS.values(), ids=OPTIONS)
def test_an_option_means_what_it_means_to_the_peer(config: Json, tmp_path: Path) -> None:
    """Same weights, same images and captions, same features; starting values of logit scale and bias agree too.

    The peer's pools beside the tokens need the width of the embedding, and leave a dimension in the feature.
    """
    (tmp_path / "theirs.json").write_text(json.dumps(config))
    ours = zoo.build(import_architecture("open_clip", tmp_path / "theirs.json"))
    theirs = peer.peer_model(config)
    for name in {"logit_scale", "logit_bias"} & (ours.state_dict().keys() | theirs.state_dict().keys()):
        torch.testing.assert_close(ours.state_dict()[name], theirs.state_dict()[name])
    peer.twins(ours, theirs)
    image, text = peer.images(ours), peer.captions(ours)
    with torch.no_grad():
        features = ours.encode_image(image)
        expected = theirs.encode_image(image).reshape(features.shape)
        torch.testing.assert_close(features, expected, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(ours.encode_text(text), theirs.encode_text(text), atol=2e-5, rtol=1e-4)


VALUES = {
    "options of a backbone": (
        {"vision_cfg": {"timm_model_name": "vit_tiny", "timm_model_kwargs": {"depth": 3, "patch_size": 8}}},
        "vision",
        {"tower": "timm", "kwargs": {"depth": 3, "patch_size": 8}},
    ),
    "a backbone of patches": (
        {
            "vision_cfg": {
                "timm_model_name": "naflexvit_base_patch16_gap",
                "image_seq_len": 99,
                "timm_model_kwargs": {"patch_size": [8, 16], "swiglu_mlp": True},
            }
        },
        "vision",
        {"tower": "naflex", "patch_size": (8, 16), "kwargs": {"swiglu_mlp": True}, "pool": "avg", "proj": "linear"},
    ),
    "how many patches": (
        {"vision_cfg": {"timm_model_name": "naflexvit_base_patch16_gap", "image_seq_len": 99}},
        "preprocess",
        {"type": "naflex", "patch_size": (16, 16), "image_seq_len": 99},
    ),
    "patch dropout": ({"vision_cfg": {"patch_dropout": 0.5}}, "vision", {"patch_dropout": 0.5}),
    "drop path": (
        {"vision_cfg": {"timm_model_name": "resnet10t", "timm_drop_path": 0.1, "timm_drop": 0.2, "patch_dropout": 0.3}},
        "vision",
        {"drop_path": 0.1, "drop": 0.2, "patch_dropout": 0.3},
    ),
    "a pool of the backbone's own": (
        {"vision_cfg": {"timm_model_name": "resnet10t", "timm_pool": ""}},
        "vision",
        {"pool": None, "proj": "linear"},
    ),
    "no head at all": (
        {"vision_cfg": {"timm_model_name": "resnet10t", "timm_pool": "map", "timm_proj": "none"}},
        "vision",
        {"pool": "map", "proj": "none"},
    ),
    "an encoder": (
        {"text_cfg": {"hf_model_name": "google/mt5-base", "hf_pooler_type": "cls_pooler", "hf_proj_type": None}},
        "text",
        {"tower": "hf-text", "name": "google/mt5-base", "vocab_size": 250_112, "pool_type": "cls", "proj": "none"},
    ),
    "another tokenizer": (
        {
            "text_cfg": {
                "vocab_size": 1000,
                "hf_tokenizer_name": "./own",
                "tokenizer_mode": "clips",
                "tokenizer_kwargs": {"clean": "lower", "language": "eng_Latn"},
            }
        },
        "tokenizer",
        {
            "type": "hf",
            "name": "./own",
            "vocab_size": 1000,
            "mode": "clips",
            "cleaning": "lower",
            "language": "eng_Latn",
        },
    ),
    "every option of the modern tower": (
        {
            "text_cfg": {
                "text_arch": "modern",
                "pos_embed": "",
                "mlp_type": "mlp",
                "norm_type": "layernorm",
                "norm_eps": 0.1,
                "attention_mode": "bidirectional",
                "attn_gated": True,
                "pre_norm": True,
                "qk_norm": True,
                "norm_placement": "sandwich",
                "zero_init_residual": True,
                "reg_tokens": 4,
                "value_residual": True,
                "attention_bias": True,
                "mlp_bias": True,
                "gate_bias": False,
                "ls_init_value": 0.1,
                "pool_type": "mean",
                "proj_bias": True,
            }
        },
        "text",
        {
            "pos_embed": "none",
            "mlp": "gelu",
            "norm": "layernorm",
            "norm_eps": 0.1,
            "causal": False,
            "attn_gated": True,
            "pre_norm": True,
            "qk_norm": True,
            "norm_placement": "sandwich",
            "zero_init_residual": True,
            "reg_tokens": 4,
            "value_residual": True,
            "attention_bias": True,
            "mlp_bias": True,
            "gate_bias": False,
            "ls_init_value": 0.1,
            "pool_type": "mean",
            "proj_bias": True,
            "pad_id": 0,
            "eos_id": None,
        },
    ),
    "a modern tower's defaults": (
        {"text_cfg": {"text_arch": "modern", "eos_id": 49_407, "rope_temperature": 500.0, "mlp_type": "relu2"}},
        "text",
        {
            "causal": True,
            "mlp": "relu2",
            "mlp_ratio": 4.0,
            "norm": "rmsnorm",
            "norm_eps": 1e-6,
            "pool_type": "eos",
            "eos_id": 49_407,
            "rope_temperature": 500.0,
        },
    ),
    "what the modern tower leaves unread": (
        {
            "text_cfg": {
                "text_arch": "modern",
                "pool_type": "map",
                "eos_id": 7,
                "pos_embed": "none",
                "rope_temperature": 5.0,
                "gate_bias": True,
                "layers": 1,
                "value_residual": True,
            }
        },
        "text",
        {"eos_id": None, "rope_temperature": 10_000.0, "gate_bias": None, "value_residual": False},
    ),
    "an encoding of tiktoken": (
        {
            "text_cfg": {
                "vocab_size": 100_280,
                "tokenizer_type": "tiktoken",
                "tokenizer_kwargs": {"clean": "lower", "add_bos": False},
                "eos_id": 100_277,
                "pool_type": "eos",
            }
        },
        "tokenizer",
        {
            "type": "tiktoken",
            "encoding": "cl100k_base",
            "vocab_size": 100_280,
            "cleaning": "lower",
            "add_bos": False,
            "add_eos": True,
        },
    ),
    "cleaning": (
        {"text_cfg": {"tokenizer_kwargs": {"clean": "canonicalize"}}},
        "tokenizer",
        {"cleaning": "canonicalize"},
    ),
}


@pytest.mark.parametrize(("change", "section", "values"), VALUES.values(), ids=VALUES)
def test_a_value_is_taken_over(change: Json, section: str, values: Json, imported: Import) -> None:
    found = getattr(zoo.config(imported(change)), section)
    assert {key: getattr(found, key) for key in values} == values


def test_an_encoder_makes_the_model_one_with_a_text_tower_of_its_own(imported: Import) -> None:
    assert imported({"text_cfg": {"hf_model_name": "roberta-base"}})["model"] == "custom-text-clip"
    assert imported({"text_cfg": {"text_arch": "modern", "pool_type": "mean"}})["model"] == "custom-text-clip"
    assert imported({"text_cfg": {"variable_text": True}})["model"] == "custom-text-clip"
    assert imported()["model"] == "clip"


def test_what_the_peer_does_not_read_has_no_effect(imported: Import) -> None:
    assert imported({"text_cfg": {"eos_id": 7, "pad_id": 3, "final_ln_after_pool": True}}) == imported()
    assert imported({"vision_cfg": {"attn_pooler_heads": 3, "timm_pool": "map"}}) == imported()


def test_only_what_differs_from_a_default_is_written(imported: Import) -> None:
    assert imported({"vision_cfg": {"patch_size": 32, "qk_norm": True}}) == {
        "model": "clip",
        "embed_dim": 512,
        "vision": {"tower": "vit", "patch_size": 32, "block": {"qk_norm": True}},
        "text": {"tower": "clip-transformer"},
        "tokenizer": {"type": "clip-bpe"},
        "preprocess": {"type": "image"},
    }


def test_a_file_of_the_hub_brings_its_preprocessing(tmp_path: Path) -> None:
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.4, 0.5, 0.6], "resize_mode": "longest", "fill_color": 9}
    file = {"model_cfg": MODEL, "preprocess_cfg": {"size": [224, 224], "interpolation": "bilinear", **preprocess}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(file))
    found = import_architecture("open_clip", tmp_path / "open_clip_config.json")
    assert found["preprocess"] == {
        "type": "image",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.4, 0.5, 0.6],
        "interpolation": "bilinear",
        "resize_mode": "longest",
        "fill": 9,
    }
