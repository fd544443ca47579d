"""What the error of a config says is to be changed, when changed so, makes a config that builds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import zoo
from support.models.families import FAMILIES
from zoo_core.errors import ZooError

CLIP, COCA, MODERN = "ViT CLIP", "CoCa", "modern text"

LAST = ["text.class_token=true", "text.pool_type=last"]
OVERRIDES: list[tuple[str, list[str], str, list[str]]] = [
    (CLIP, ["vision.attn_pooler_queries=4"], "set attentional_pool: single", ["vision.attentional_pool=single"]),
    (CLIP, ["text.proj_type=none", "text.proj_bias=true"], "set proj_type: linear", ["text.proj_type=linear"]),
    (CLIP, ["text.eos_id=599"], "set pool_type: eos", ["text.pool_type=eos"]),
    (CLIP, ["text.pool_type=first"], "set causal: false", ["text.causal=false"]),
    (CLIP, ["text.class_token=true", "text.pad_id=0"], "set pool_type: last", ["text.pool_type=last"]),
    (CLIP, ["text.pad_mask=true"], "set causal: false", ["text.causal=false", "text.pool_type=last", "text.pad_id=0"]),
    (CLIP, ["text.pad_id=0"], "set class_token", ["text.class_token=true", "text.pool_type=last"]),
    (CLIP, ["text.pad_id=0", "text.class_token_mask=exact"], "set class_token: true", LAST),
    (CLIP, ["text.proj_type=none"], "set proj_type: linear", ["text.proj_type=linear"]),
    (CLIP, ["text.vocab_size=100"], "set it to at least 600", ["text.vocab_size=600"]),
    (CLIP, ["preprocess.fill=3"], "leave fill out", ["~preprocess.fill"]),
    (COCA, ["text_sees_ahead=true"], "leave it out", ["~text_sees_ahead"]),
    (MODERN, ["text.rope_temperature=100", "text.pos_embed=none"], "set pos_embed: rope", ["text.pos_embed=rope"]),
    (MODERN, ["text.attn_gated=false", "text.gate_bias=true"], "set attn_gated: true", ["text.attn_gated=true"]),
    (MODERN, ["text.layers=1", "text.value_residual=true"], "set layers to at least 2", ["text.layers=2"]),
    ("timm ConvNeXt", ["vision.name=test_convnext.r160_in1k"], "write 'test_convnext'", ["vision.name=test_convnext"]),
    ("timm ConvNeXt", ["vision.proj=none"], "write proj: linear", ["vision.proj=linear"]),
    ("timm SigLIP", ["vision.proj_bias=true"], "leave it out", ["~vision.proj_bias"]),
    ("timm SigLIP", ["vision.drop=0.1"], "leave it out", ["~vision.drop"]),
    ("HF text", ["text.config.vocab_size=77"], "leave it out", ["~text.config.vocab_size"]),
    (CLIP, ["max_parameters=10"], "raise max_parameters", ["max_parameters=100000"]),
    (CLIP, ["text.block.qk_norm=true", "text.block.scaled_cosine=true"], "choose one", ["text.block.qk_norm=false"]),
    (COCA, ["vision.final_ln_after_pool=true"], "leave this out", ["~vision.final_ln_after_pool"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("family", "broken", "advice", "mending"), OVERRIDES, ids=[" ".join(one[1]) for one in OVERRIDES]
)
def test_a_config_that_is_changed_as_its_error_says_builds(
    family: str, broken: list[str], advice: str, mending: list[str]
) -> None:
    architecture = FAMILIES[family].architecture
    with pytest.raises(ZooError, match=re.escape(advice)):
        zoo.build(architecture, overrides=broken)
    left_out = {one[1:] for one in mending if one.startswith("~")}
    kept = [one for one in broken if one.partition("=")[0] not in left_out]
    zoo.build(architecture, overrides=[*kept, *(one for one in mending if not one.startswith("~"))])


YAML: list[tuple[str, str, str]] = [
    ("embed_dim: &d 16\ntext: {width: *d}", "write ${key} instead", "embed_dim: 16\ntext: {width: '${embed_dim}'}"),
    ("embed_dim: !width 16", "write a plain value", "embed_dim: 16"),
    ("<<: {embed_dim: 16}", "use 'extends'", "embed_dim: 16"),
]


@pytest.mark.parametrize(("broken", "advice", "mended"), YAML, ids=[one[1] for one in YAML])
def test_a_file_that_is_written_as_its_error_says_builds(broken: str, advice: str, mended: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"extends: digits-tiny\n{broken}\n")
    with pytest.raises(ZooError, match=re.escape(advice)):
        zoo.config(path)
    path.write_text(f"extends: digits-tiny\n{mended}\n")
    zoo.config(path)
