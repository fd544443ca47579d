"""Configs refuse what they cannot use, and say which key, what was found and what is allowed."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zoo
from support.models.tiny_configs import TINY, changed
from zoo_core.config import Config, ModelConfig
from zoo_core.errors import ConfigError, ZooError, dotted

BAD = {
    # what open_clip 3.3.0 accepts in silence, or refuses late or obscurely
    "head width that does not divide": (
        {"vision": {"head_width": 48}},
        "vision.head_width: 48 does not divide the width 64",
    ),
    "patch that does not divide": (
        {"vision": {"image_size": 38}},
        "vision.patch_size: 8 does not divide the image height 38",
    ),
    "patch larger than the image": (
        {"vision": {"patch_size": 64}},
        "vision.patch_size: 64 does not divide the image height 32",
    ),
    "unknown block type": ({"vision": {"block_type": "Custom"}}, "vision.block_type: unknown key"),
    "unknown text architecture": ({"text": {"text_arch": "moderm"}}, "text.text_arch: unknown key"),
    "projection that does not exist": (
        {"text": {"proj_type": "mlp"}},
        "text.proj_type: 'mlp' is not known (allowed: linear, none)",
    ),
    "unpooled text": (
        {"text": {"pool_type": "none"}},
        "text.pool_type: 'none' is not known (allowed: argmax, eos, first, last)",
    ),
    "negative patch dropout": (
        {"vision": {"patch_dropout": -0.5}},
        "vision.patch_dropout: must be at least 0, found -0.5",
    ),
    "patch dropout of everything": ({"vision": {"patch_dropout": 1.0}}, "vision.patch_dropout: must be less than 1"),
    "quick_gelu as a string": ({"quick_gelu": "false"}, "quick_gelu: unknown key"),
    "end-of-text pooling without its id": ({"text": {"pool_type": "eos"}}, "text.eos_id: pool_type 'eos' needs the id"),
    "option that no tower reads": ({"text": {"final_ln_after_pool": True}}, "text.final_ln_after_pool: unknown key"),
    "missing section": ({"text": None}, "text: expected a section with the key 'tower', found None"),
    "misspelt key": ({"vision": {"pach_size": 8}}, "vision.pach_size: unknown key, did you mean 'patch_size'?"),
    "misspelt key at the top": ({"embed_dmi": 32}, "embed_dmi: unknown key, did you mean 'embed_dim'?"),
    "unknown pooling": ({"vision": {"pool_type": "max"}}, "vision.pool_type: 'max' is not known (allowed: avg, tok)"),
    "unknown positions": ({"vision": {"pos_embed_type": "rope"}}, "vision.pos_embed_type: unknown key"),
    "tokens that CLIP cannot take": ({"vision": {"output_tokens": True}}, "vision.output_tokens: unknown key"),
    "class token that CLIP cannot take": ({"text": {"embed_cls": True}}, "text.embed_cls: unknown key"),
    "number as a string": ({"text": {"mlp_ratio": "4"}}, "text.mlp_ratio: expected a number, found '4'"),
    "length as a string": (
        {"text": {"context_length": "16"}},
        "text.context_length: expected a whole number, found '16'",
    ),
    "layers of another tower": (
        {"vision": {"layers": [1, 1, 1]}},
        "vision.layers: expected a whole number, found [1, 1, 1]",
    ),
    "no text layers": ({"text": {"layers": 0}}, "text.layers: must be at least 1, found 0"),
    "no vision layers": ({"vision": {"layers": 0}}, "vision.layers: must be at least 1, found 0"),
    "options of an activation": ({"vision": {"act_kwargs": {"approximate": "tanh"}}}, "vision.act_kwargs: unknown key"),
    # what any config can get wrong
    "no embedding": ({"embed_dim": 0}, "embed_dim: must be at least 1, found 0"),
    "bool for a number": ({"embed_dim": True}, "embed_dim: expected a whole number, found True"),
    "null for a number": ({"vision": {"layers": None}}, "vision.layers: expected a whole number, found None"),
    "fraction for a whole number": ({"vision": {"width": 64.5}}, "vision.width: expected a whole number, found 64.5"),
    "not a number": ({"vision": {"mlp_ratio": float("nan")}}, "vision.mlp_ratio: "),
    "infinite": ({"text": {"mlp_ratio": float("inf")}}, "text.mlp_ratio: "),
    "unknown activation": (
        {"vision": {"activation": "quickgelu"}},
        "vision.activation: 'quickgelu' is not known, did you mean 'quick_gelu'? (allowed: gelu, gelu_tanh, quick_gelu)",
    ),
    "size of three": (
        {"vision": {"image_size": [1, 2, 3]}},
        "vision.image_size: expected a size such as 224 or [224, 336], found [1, 2, 3]",
    ),
    "size of a bool": ({"vision": {"image_size": True}}, "vision.image_size: expected a size"),
    "giant image": ({"vision": {"image_size": 32_768}}, "vision.image_size: each side must be from 1 to 16384 pixels"),
    "vocabulary below the tokenizer's": (
        {"text": {"vocab_size": 599}},
        "text.vocab_size: 599 rows are too few for tokenizer 'clip-bpe', whose ids reach 599; set it to at least 600",
    ),
    "a padding that the tokenizer does not use": (
        {"text": {"causal": False, "pad_mask": True, "pad_id": 1}},
        "text.pad_id: 1 is not the padding of tokenizer 'clip-bpe', which is 0",
    ),
    "an end of text that the tokenizer does not write": (
        {"text": {"pool_type": "eos", "eos_id": 2}},
        "text.eos_id: 2 is not the end of text of tokenizer 'clip-bpe', which is 599",
    ),
    "a largest id that is no end of text": (
        {"tokenizer": {"type": "tiktoken", "vocab_size": 600}},
        "text.pool_type: 'argmax' reads the feature at the largest id, but of tokenizer 'tiktoken' that is 599, and "
        "the end of text is 597; set pool_type: eos and eos_id: 597",
    ),
    "queries that do not go with the embedding": (
        {"embed_dim": 20, "vision": {"attentional_pool": "single"}},
        "vision.attn_pooler_heads: 8 does not divide embed_dim = 20",
    ),
    "no projection to the embedding": (
        {"text": {"proj_type": "none"}},
        "text.proj_type: 'none' makes the width 64 the feature, which must have embed_dim = 32; set proj_type: linear",
    ),
    "heads that do not divide": ({"text": {"heads": 7}}, "text.heads: 7 does not divide the width 64"),
    "giant model": ({"vision": {"layers": 1000, "width": 65_536}}, "max_parameters: the model would have "),
    "endless layers": ({"vision": {"layers": 10**6}}, "vision.layers: must be at most 1000, found 1000000"),
    "endless context": ({"text": {"context_length": 200_000}}, "text.context_length: must be at most 65536"),
    "unknown tower": ({"vision": {"tower": "vitt"}}, "vision.tower: unknown vision-tower 'vitt', did you mean 'vit'?"),
    "no tower named": ({"vision": {"tower": None}}, "vision.tower: names no vision-tower; allowed: "),
    "tower of the wrong type": ({"vision": {"tower": 3}}, "vision.tower: expected a name, found 3"),
    "section that is none": ({"vision": 7}, "vision: expected a section with the key 'tower', found 7"),
    "logit bias as a string": ({"init_logit_bias": "-10"}, "init_logit_bias: expected a number, found '-10'"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_architecture_is_refused_with_the_key_the_value_and_the_rule(case: str) -> None:
    change, message = BAD[case]
    with pytest.raises(ConfigError) as caught:
        zoo.config(changed(**change))
    assert message in str(caught.value)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        zoo.config(
            changed(embed_dim=0, vision={"width": -1, "patchsize": 2}, text={"heads": 7}, tokenizer={"type": "bep"})
        )
    assert {problem.key for problem in caught.value.problems} == {
        "embed_dim", "vision.width", "vision.patchsize", "text.heads", "tokenizer.type",
    }  # fmt: skip


def test_a_config_made_by_hand_raises_the_same_error() -> None:
    with pytest.raises(ConfigError, match="ViTConfig: pach_size: unknown key, did you mean 'patch_size'?"):
        zoo.CLIPVisionCfg(pach_size=8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"quick_gelu": "false"}, "quick_gelu: expected true or false, found 'false'"),
        ({"embed_dim": "32"}, "embed_dim: expected a whole number, found '32'"),
        ({"init_logit_scale": float("nan")}, "init_logit_scale: "),
        ({"vision_cfg": {"layers": 2, "wdth": 3}}, "vision_cfg: wdth: unknown key, did you mean 'width'?"),
        ({"text_cfg": 5}, "text_cfg: expected a section with the key 'tower', found 5"),
        (
            {"text_cfg": TINY["text"] | {"proj_type": "none"}},
            "proj_type: 'none' makes the width 64 the feature, which must have embed_dim = 32",
        ),
        ({"cast_dtype": "bf16"}, "cast_dtype must be None, float32, float16 or bfloat16, found 'bf16'"),
    ],
)
def test_constructor_arguments_are_as_strict_as_configs(arguments: dict[str, Any], message: str) -> None:
    good = {"embed_dim": 32, "vision_cfg": TINY["vision"], "text_cfg": TINY["text"]}
    with pytest.raises(ZooError) as caught:
        zoo.CLIP(**good | arguments)
    assert message in str(caught.value)


def test_a_config_cannot_be_changed() -> None:
    config = zoo.config(TINY)
    with pytest.raises(ConfigError, match=r"ClipConfig.embed_dim cannot be set: .*overrides=\['embed_dim=...'\]$"):
        config.embed_dim = 64


def test_a_section_must_be_the_config_that_its_component_takes() -> None:
    other = zoo.CLIPTextCfg()
    with pytest.raises(ConfigError, match="vision: expected a section"):
        type(zoo.config(TINY)).parse({**TINY, "vision": other})


@pytest.mark.parametrize("name", zoo.list_models())
def test_the_data_of_every_architecture_gives_an_equal_config(name: str) -> None:
    config = zoo.config(name)
    assert zoo.config(config.data()) == config
    assert pickle.loads(pickle.dumps(config)) == config
    assert copy.deepcopy(config) == config


@given(
    section=st.sampled_from(["vision", "text", "tokenizer", "preprocess"]),
    key=st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12),
    value=st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=8), st.lists(st.integers(), max_size=3)),
)
def test_any_one_change_is_used_or_refused_with_its_key(section: str, key: str, value: Any) -> None:
    try:
        config = zoo.config(changed(**{section: {key: value}}))
    except ConfigError as error:
        assert any(
            problem.key.startswith(f"{section}.{key}") or problem.key == section for problem in error.problems
        ) or ("max_parameters" in str(error))
    else:
        dumped = config.data()[section].get(key)
        assert dumped == value or value is None or [value, value] == dumped


@given(
    section=st.sampled_from(["vision", "text"]),
    index=st.integers(0, 5),
    value=st.one_of(st.none(), st.booleans(), st.integers(-(10**9), 10**9), st.floats(), st.text(max_size=4)),
)
def test_a_known_key_with_any_value_is_used_or_blamed(section: str, index: int, value: Any) -> None:
    key = sorted(TINY[section])[index]
    try:
        config = zoo.config(changed(**{section: {key: value}}))
    except ConfigError as error:
        blamed = {problem.key.partition(".")[0] for problem in error.problems}
        assert blamed <= {section, "max_parameters", "text"}  # a vocabulary may also be too small for the tokenizer
    else:
        assert isinstance(config, ModelConfig)


def test_a_reason_reaches_the_key_that_a_rule_blames() -> None:
    class Pair(Config):
        low: int
        high: int

        def rules(self):  # type: ignore[no-untyped-def]
            if self.low > self.high:
                yield "low", f"must not exceed high = {self.high}"

    assert Pair(low=1, high=2).low == 1
    with pytest.raises(ConfigError) as caught:
        Pair(low=3, high=2)
    assert str(caught.value) == "Pair: low: must not exceed high = 2"


def test_dotted_writes_lists_as_indices() -> None:
    assert dotted(("vision", "layers", 2, "x")) == "vision.layers[2].x"
