"""`zoo import`: open_clip's configs become ours, or every key that cannot is named."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import peer
import zoo
from development_configs import DEVELOPMENT
from zoo.catalog import architectures
from zoo.commands.app import main
from zoo.importing import import_architecture
from zoo_core.errors import ConfigError, PluginError
from zoo_openclip.exporting import hub_file

Json = dict[str, Any]
Import = Callable[..., Json]


@cache
def peer_configs() -> dict[str, Path]:
    """Return the peer's files by the names that their architectures have here."""
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None and spec.origin is not None
    files = {path.stem: path for path in (Path(spec.origin).parent / "model_configs").glob("*.json")}
    return {
        one.name: files[name] for one in architectures().entries for name in (one.name, *one.aliases) if name in files
    }


def comparable(config: Any) -> Json:
    """Return what the peer's JSON tells of an architecture: no description, no preprocessing, no encoder's config."""
    data = config.data()
    for key in ("description", "preprocess"):
        data.pop(key, None)
    if data["text"]["tower"] == "hf-text":
        data["text"] = {key: value for key, value in data["text"].items() if key not in ("config", "name")}
    return data


MODEL: Json = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
}


def changed(change: Json, base: Json = MODEL) -> Json:
    """Return a config with a change laid over it; None takes a key out."""
    made = dict(base)
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(made.get(key), dict):
            made[key] = changed(value, made[key])
        else:
            made[key] = value
    return made


@pytest.fixture
def imported(tmp_path: Path) -> Import:
    """Return a function that imports open_clip's usual config with a change."""

    def imported(change: Json | None = None) -> Json:
        path = tmp_path / "theirs.json"
        path.write_text(json.dumps(changed(change or {})))
        return import_architecture("open_clip", path)

    return imported


# every architecture that both offer


@pytest.mark.parametrize("name", sorted(peer_configs()))
def test_the_peers_config_becomes_our_architecture(name: str) -> None:
    ours = comparable(zoo.config(name))
    if name == "vitamin-xl-384":  # the peer's file says 256, and its weights and its name 384
        ours["vision"]["image_size"] = [256, 256]
    assert comparable(zoo.config(import_architecture("open_clip", peer_configs()[name]))) == ours


def test_there_is_an_architecture_for_each_of_the_peers() -> None:
    import open_clip

    assert len(open_clip.list_models()) == 144
    assert {path.stem for path in peer_configs().values()} == set(open_clip.list_models())


@pytest.mark.parametrize("name", DEVELOPMENT)
def test_a_config_of_the_peers_development_branch_becomes_our_architecture(name: str, tmp_path: Path) -> None:
    (tmp_path / "theirs.json").write_text(json.dumps(DEVELOPMENT[name]))
    found = zoo.config(import_architecture("open_clip", tmp_path / "theirs.json"))
    assert comparable(found) == comparable(zoo.config(name))
    if "naflex" in name:  # the peer's JSON tells of its preprocessing how pictures are cut
        for key in ("type", "patch_size", "image_seq_len"):
            assert getattr(found.preprocess, key) == getattr(zoo.config(name).preprocess, key)
    if "hf_model_config" in DEVELOPMENT[name]["text_cfg"]:
        assert found.text.config == DEVELOPMENT[name]["text_cfg"]["hf_model_config"]
        assert found.text.name == DEVELOPMENT[name]["text_cfg"]["hf_model_name"]


@pytest.mark.parametrize("name", [one for one in DEVELOPMENT if "hf_model_name" not in DEVELOPMENT[one]["text_cfg"]])
def test_what_is_exported_is_imported_again(name: str, tmp_path: Path) -> None:
    config = zoo.config(name)
    (tmp_path / "ours.json").write_text(json.dumps(hub_file(config.data())))
    assert comparable(zoo.config(import_architecture("open_clip", tmp_path / "ours.json"))) == comparable(config)


# what no file of the peer says


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


# what is refused

NEW: Json = {"mlp_type": "swiglu", "norm_type": "rmsnorm"}
MODERN: Json = DEVELOPMENT["moderntext-ViT-B-32-256"]["text_cfg"]
TOKENS: Json = {"vision_cfg": {"output_tokens": True}, "text_cfg": {"output_tokens": True}}
REFUSED = {
    "an unknown key": ({"vision_cfg": {"widht": 3}}, "vision_cfg.widht: unknown key, did you mean 'width'?"),
    "a misspelt tower, which the peer takes for CLIP's": (
        {"text_cfg": {"text_arch": "moderm", **NEW}},
        "text_cfg.text_arch: 'moderm' is not known, did you mean 'modern'?",
    ),
    "a key of the modern tower": (
        {"text_cfg": {"attn_gated": True}},
        "text_cfg.attn_gated: open_clip reads it with text_arch 'modern' only, and this is 'clip'; leave it out",
    ),
    "a key of CLIP's tower": (
        {"text_cfg": MODERN | {"no_causal_mask": True}},
        "text_cfg.no_causal_mask: open_clip reads it with text_arch 'clip' only, and this is 'modern'; leave it out",
    ),
    "a modern tower without an end of text": (
        {"text_cfg": MODERN | {"eos_id": None}},
        "text_cfg.eos_id: pool_type 'eos' of text_arch 'modern' needs the id of the end-of-text token",
    ),
    "a pool of CLIP's tower": (
        {"text_cfg": MODERN | {"pool_type": "last"}},
        "text_cfg.pool_type: 'last' is not known to text_arch 'modern' (allowed: argmax, eos, map, mean)",
    ),
    "a misspelt perceptron": (
        {"text_cfg": MODERN | {"mlp_type": "swigl"}},
        "text_cfg.mlp_type: 'swigl' is not known, did you mean 'swiglu'?",
    ),
    "a misspelt attention": (
        {"text_cfg": MODERN | {"attention_mode": "both"}},
        "text_cfg.attention_mode: 'both' is not known (allowed: bidirectional, causal)",
    ),
    "a modern encoder": (
        {"text_cfg": MODERN | {"hf_model_name": "roberta-base"}},
        "text_cfg.text_arch: 'modern' is no Hugging Face encoder",
    ),
    "a modern tower under a decoder": (
        {
            "custom_text": True,
            "multimodal_cfg": {"context_length": 256},
            "text_cfg": MODERN | {"output_tokens": True},
            "vision_cfg": {"output_tokens": True},
        },
        "text_cfg.text_arch: open_clip builds no decoder over 'modern'; leave multimodal_cfg out",
    ),
    "another start of text": (
        {"text_cfg": MODERN | {"bos_id": 50_256}},
        "text_cfg.bos_id: 50256 is not the one of r50k_base, which is 50259",
    ),
    "another padding": (
        {"text_cfg": MODERN | {"pad_id": 0}},
        "text_cfg.pad_id: 0 is not the one of r50k_base, which is 50258",
    ),
    "an encoding of unknown size": (
        {"text_cfg": MODERN | {"tiktoken_name": "r60k_base"}},
        "text_cfg.tiktoken_name: the size of 'r60k_base' is in no config of open_clip",
    ),
    "two tokenizers": (
        {"text_cfg": MODERN | {"hf_tokenizer_name": "bert-base-uncased"}},
        "text_cfg.hf_tokenizer_name: tokenizer_type 'tiktoken' leaves it unread",
    ),
    "options of no tiktoken": (
        {"text_cfg": MODERN | {"tokenizer_kwargs": {"strip_sep_token": True}}},
        "text_cfg.tokenizer_kwargs.strip_sep_token: cannot be expressed; allowed: add_bos, add_eos, clean",
    ),
    "an unknown section": ({"audio_cfg": {}}, "audio_cfg: unknown key"),
    "a fraction of a block": ({"text_cfg": {"layers": 1.5}}, "text_cfg.layers: expected a whole number, found 1.5"),
    "three depths": (
        {"vision_cfg": {"layers": [3, 4, 6]}},
        "vision_cfg.layers: expected a whole number, or four of a residual network such as [3, 4, 6, 3]",
    ),
    "a size in words": ({"vision_cfg": {"image_size": "224"}}, "vision_cfg.image_size: expected a size such as 224"),
    "no patch": ({"vision_cfg": {"patch_size": None}}, "vision_cfg.patch_size: a vision transformer needs one"),
    "a flag in words": ({"quick_gelu": "yes"}, "quick_gelu: expected true or false, found 'yes'"),
    "no section": ({"text_cfg": 3}, "text_cfg: expected a section of keys, found 3"),
    "no pooling": (
        {"vision_cfg": {"pool_type": "none"}},
        "vision_cfg.pool_type: 'none' is not known (allowed: avg, tok)",
    ),
    "another pool": (
        {"text_cfg": {"pool_type": "map"}},
        "text_cfg.pool_type: 'map' is not known to text_arch 'clip' (allowed: argmax, eos, first, last)",
    ),
    "tokens": ({"vision_cfg": {"output_tokens": True}}, "vision_cfg.output_tokens: only CoCa's towers give tokens"),
    "a decoder without tokens": (
        {"custom_text": True, "multimodal_cfg": {"layers": 12}, "vision_cfg": {"output_tokens": True}},
        "text_cfg.output_tokens: CoCa's decoder needs the tokens; set it to true",
    ),
    "a decoder of CLIP": (
        {"multimodal_cfg": {}, **TOKENS},
        "custom_text: open_clip builds a decoder only with custom_text: true",
    ),
    "a decoder of few tokens": (
        {"custom_text": True, "multimodal_cfg": {"context_length": 40}, **TOKENS},
        "multimodal_cfg.context_length: 40 is too short for captions of 77 tokens",
    ),
    "a ratio that is not read": (
        {"custom_text": True, "multimodal_cfg": {"mlp_ratio": 2}},
        "multimodal_cfg.mlp_ratio: open_clip does not read it, and builds a decoder of 4; found 2",
    ),
    "a key of no decoder": ({"multimodal_cfg": {"depth": 2}}, "multimodal_cfg.depth: unknown key"),
    "an option of no GELU": (
        {"vision_cfg": {"act_kwargs": {"inplace": True}}},
        "vision_cfg.act_kwargs.inplace: unknown key",
    ),
    "an option of no norm": (
        {"text_cfg": {"norm_kwargs": {"bias": False}}},
        "text_cfg.norm_kwargs.bias: unknown key; allowed: eps",
    ),
    "two activations": (
        {"quick_gelu": True, "text_cfg": {"act_kwargs": {"approximate": "tanh"}}},
        "text_cfg.act_kwargs: are options of GELU, and quick_gelu replaces it",
    ),
    "a class token that is left out": (
        {"text_cfg": {"embed_cls": True}},
        "text_cfg.embed_cls: open_clip's CLIP leaves",
    ),
    "no pool and no projection": (
        {"vision_cfg": {"timm_model_name": "resnet10t", "timm_pool": "", "timm_proj": "none"}},
        "vision_cfg.timm_pool: an output map that is neither pooled nor projected is no feature",
    ),
    "patches of images": (
        {"vision_cfg": {"image_seq_len": 49}},
        "vision_cfg.image_seq_len: only a NaFlex backbone takes pictures of so many patches; leave it out",
    ),
    "options that are no mapping": (
        {"vision_cfg": {"timm_model_name": "resnet10t", "timm_model_kwargs": [1]}},
        "vision_cfg.timm_model_kwargs: expected a section of keys, found [1]",
    ),
    "an encoder of unknown size": (
        {"text_cfg": {"hf_model_name": "acme/bert"}},
        "text_cfg.hf_model_name: the vocabulary of 'acme/bert' is in no config of open_clip",
    ),
    "options of a tokenizer": (
        {"text_cfg": {"tokenizer_kwargs": {"use_fast": False}}},
        "text_cfg.tokenizer_kwargs.use_fast: cannot be expressed; allowed: clean",
    ),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_expressed_is_refused_by_its_key(change: Json, message: str, imported: Import) -> None:
    with pytest.raises(ConfigError) as caught:
        imported(change)
    (problem,) = caught.value.problems
    assert f"{problem.key}: {problem.message}".startswith(message)


def test_all_problems_are_told_at_once_each_at_its_line(tmp_path: Path) -> None:
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps(changed({"embed_dim": "wide", "vision_cfg": {"a": 1}, "text_cfg": {"b": 2}}), indent=2))
    with pytest.raises(ConfigError) as caught:
        import_architecture("open_clip", path)
    lines = path.read_text().splitlines()
    assert [(one.source, one.key) for one in caught.value.problems] == [
        (str(path), key) for key in ("embed_dim", "vision_cfg.a", "text_cfg.b")
    ]
    for one in caught.value.problems:
        assert lines[one.line - 1].lstrip().startswith(f'"{one.key.rpartition(".")[2]}"')


def test_what_only_our_towers_refuse_is_told_with_our_keys(imported: Import) -> None:
    with pytest.raises(ConfigError, match=r"theirs.json as an architecture: vision.head_width: 80 does not divide"):
        imported({"vision_cfg": {"head_width": 80}})


HUB = {
    "two sizes": ({"size": 256}, "preprocess_cfg.size: [256, 256] is not the image_size of vision_cfg"),
    "another mode": ({"mode": "L"}, "preprocess_cfg.mode: 'L' is not known (allowed: RGB)"),
    "chance": ({"interpolation": "random"}, "preprocess_cfg.interpolation: 'random' is not known"),
}


@pytest.mark.parametrize(("preprocess", "message"), HUB.values(), ids=HUB)
def test_preprocessing_that_cannot_be_expressed_is_refused(preprocess: Json, message: str, tmp_path: Path) -> None:
    (tmp_path / "hub.json").write_text(json.dumps({"model_cfg": MODEL, "preprocess_cfg": preprocess}))
    with pytest.raises(ConfigError) as caught:
        import_architecture("open_clip", tmp_path / "hub.json")
    assert message in str(caught.value)


# importers of strangers


def test_an_importer_that_returns_no_mapping_is_named(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo_openclip.importing.import_open_clip", lambda path: [path])
    with pytest.raises(PluginError, match="importer 'open_clip' must return a mapping, found list"):
        import_architecture("open_clip", theirs)


# the command


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps(changed({"vision_cfg": {"patch_size": 32}})))
    return path


def test_the_command_prints_a_file_that_can_be_used(theirs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "open_clip", str(theirs)]) == 0
    out = capsys.readouterr().out
    assert comparable(zoo.config(yaml.safe_load(out))) == comparable(zoo.config("vit-b32"))
    assert "patch_size: 32" in out and "width" not in out


def test_the_command_writes_a_file_once(theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "new" / "own.yaml"
    command = ["import", "open_clip", str(theirs), "--output", str(own)]
    assert main(command) == 0
    assert comparable(zoo.config(own)) == comparable(zoo.config("vit-b32"))
    own.write_text("precious")
    assert main(command) == 2
    assert f"error: {own} is there already; give --force to replace it" in capsys.readouterr().err
    assert own.read_text() == "precious"
    assert main([*command, "--force"]) == 0
    assert comparable(zoo.config(own)) == comparable(zoo.config("vit-b32"))


ERRORS = {
    "no such format": (["openclip", "theirs.json"], "error: no plugin imports 'openclip', did you mean 'open_clip'?"),
    "no such file": (["open_clip", "none.json"], "none.json: cannot be read: No such file or directory"),
    "no JSON": (["open_clip", "broken.json"], "broken.json:2:1: is not YAML: did not find"),
    "no mapping": (["open_clip", "list.json"], "list.json:1:1: expected a mapping of keys at the top level"),
    "no YAML": (["open_clip", "theirs.json", "--output", "own.json"], "own.json: the file of an architecture ends in"),
}


@pytest.mark.parametrize(("arguments", "message"), ERRORS.values(), ids=ERRORS)
def test_the_command_refuses(
    arguments: list[str],
    message: str,
    theirs: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(theirs.parent)
    Path("broken.json").write_text('{"embed_dim": 512,')
    Path("list.json").write_text("[1]")
    assert main(["import", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
