"""`zoo import`: what cannot be expressed is refused by its key, at its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.checkpoints.development_configs import DEVELOPMENT
from support.checkpoints.openclip_configs import MODEL, Import, Json, changed, importer
from zoo.transfer.import_config import import_architecture
from zoo_core.errors import ConfigError

NEW: Json = {"mlp_type": "swiglu", "norm_type": "rmsnorm"}
MODERN: Json = DEVELOPMENT["moderntext-ViT-B-32-256"]["text_cfg"]
TOKENS: Json = {"vision_cfg": {"output_tokens": True}, "text_cfg": {"output_tokens": True}}
REFUSED = {
    "the former name of a projection": (
        {"text_cfg": {"hf_model_name": "roberta-base", "proj": "mlp"}},
        "text_cfg.proj: unknown key, did you mean 'hf_proj_type'?",
    ),
    "the former name of a pooler": (
        {"text_cfg": {"hf_model_name": "roberta-base", "pooler_type": "mean_pooler"}},
        "text_cfg.pooler_type: unknown key, did you mean 'hf_pooler_type'?",
    ),
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
    "an encoder in no folder": (
        {"text_cfg": {"hf_model_name": "./no/such/folder"}},
        "text_cfg: './no/such/folder': there is no such folder",
    ),
    "options of a tokenizer": (
        {"text_cfg": {"tokenizer_kwargs": {"use_fast": False}}},
        "text_cfg.tokenizer_kwargs.use_fast: cannot be expressed; allowed: clean",
    ),
}


@pytest.fixture
def imported(tmp_path: Path) -> Import:
    return importer(tmp_path)


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
