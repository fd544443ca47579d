"""The architectures over timm backbones, beside the peer's configs, preprocessing and parameters."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

import zoo
from support.peer import peer_json, peer_names

NAMES = sorted(peer_names(over_timm=True))
NLLB = ("nllb-clip-base-siglip", "nllb-clip-large-siglip")
"""Their text tower is an encoder of transformers."""
SLIPS = {"vitamin-xl-384": {"image_size": (384, 384)}}
"""Where the peer's file contradicts its own name and its backbone, which takes 384 pixels and no 256."""
QUICK = (
    "convnext-tiny",
    "vitamin-s",
    "swin-base-patch4-window7-224",
    "eva02-b16",
    "pe-core-t16-384",
    "mobileclip-s1",
    "vit-b16-siglip2",
)
"""One architecture of each family."""


def test_all_of_the_peers_timm_models_are_offered() -> None:
    configs = {name: open_clip.get_model_config(name) for name in open_clip.list_models()}
    expected = {name for name, config in configs.items() if config and "timm_model_name" in config["vision_cfg"]}
    assert expected == set(peer_names(over_timm=True).values())
    assert len(expected) == 78


@pytest.mark.parametrize("name", NAMES)
def test_the_config_holds_the_peers_values(name: str) -> None:
    config: Any = zoo.config(name)
    theirs = peer_json(name)
    vision, text = theirs["vision_cfg"], theirs["text_cfg"]
    proj = vision["timm_proj"] or "head"
    size = vision["image_size"]
    expected = {
        "name": vision["timm_model_name"],
        "image_size": (size, size),
        "pool": vision["timm_pool"] or None,
        "proj": proj,
        "drop_path": vision.get("timm_drop_path"),
        "drop": 0.0,
    } | SLIPS.get(name, {})
    assert {key: getattr(config.vision, key) for key in expected} == expected
    if name not in NLLB:
        expected = {
            "mlp_ratio": text.get("mlp_ratio", 4.0),
            "causal": not text.get("no_causal_mask", False),
            "pool_type": text.get("pool_type", "argmax"),
            "proj_type": text.get("proj_type", "linear"),
            "proj_bias": text.get("proj_bias", False),
            "norm_eps": text.get("norm_kwargs", {"eps": 1e-5})["eps"],
            "activation": {None: "gelu", "tanh": "gelu_tanh"}[text.get("act_kwargs", {}).get("approximate")],
        } | {key: text[key] for key in ("context_length", "vocab_size", "width", "heads", "layers")}
        assert {key: getattr(config.text, key) for key in expected} == expected
        assert getattr(config.tokenizer, "name", None) == text.get("hf_tokenizer_name")
        assert config.tokenizer.cleaning == text.get("tokenizer_kwargs", {}).get("clean", "lower")
    assert config.embed_dim == theirs["embed_dim"]
    assert config.init_logit_bias == theirs.get("init_logit_bias")
    assert config.model == ("custom-text-clip" if theirs.get("custom_text") or name in NLLB else "clip")


@pytest.mark.parametrize("name", NAMES)
def test_the_preprocessing_is_that_of_the_peers_weights(name: str) -> None:
    found: Any = zoo.config(name).preprocess
    alias = peer_names(over_timm=True)[name]
    for tag in list_pretrained_tags_by_model(alias):
        theirs = get_pretrained_cfg(alias, tag)
        for key in ("mean", "std", "interpolation", "resize_mode"):
            assert getattr(found, key) == theirs[key], (tag, key)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NAMES if name not in NLLB]
)
def test_an_architecture_has_the_peers_parameters(name: str) -> None:
    theirs = peer_json(name)
    kind = open_clip.CustomTextCLIP if theirs.pop("custom_text", False) else open_clip.CLIP
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in kind(**theirs).state_dict().items()}
        ours = zoo.build(name, device="meta")
    assert {key: value.shape for key, value in ours.state_dict().items()} == shapes
