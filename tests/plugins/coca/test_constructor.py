"""`zoo.CoCa(embed_dim, multimodal_cfg, text_cfg, vision_cfg)` beside open_clip.CoCa of the same sizes."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch

import zoo
from support.peer import captions, images, randomized
from zoo import CLIPTextCfg, CLIPVisionCfg, CoCa, MultimodalCfg
from zoo_core.errors import ConfigError, InputError
from zoo_core.nn.transformer import LayerNorm, QuickGELU

VISION: dict[str, Any] = {"image_size": 32, "patch_size": 16, "width": 32, "layers": 2, "head_width": 16}
POOL: dict[str, Any] = {"attn_pooler_queries": 5, "attn_pooler_heads": 4}
TEXT: dict[str, Any] = {"context_length": 12, "vocab_size": 600, "width": 24, "heads": 2, "layers": 2}
DECODER: dict[str, Any] = {"width": 24, "heads": 2, "layers": 2}
CLASS_TOKEN: dict[str, Any] = {"class_token": True, "pool_type": "last"}


def ours(**changes: Any) -> Any:
    arguments = {
        "embed_dim": 24,
        "multimodal_cfg": DECODER,
        "text_cfg": TEXT | CLASS_TOKEN,
        "vision_cfg": VISION | POOL | {"attentional_pool": "single"},
    }
    return CoCa(**arguments | changes)


def theirs(**changes: Any) -> Any:
    return open_clip.CoCa(
        embed_dim=24,
        multimodal_cfg=DECODER | {"context_length": 12, "vocab_size": 600},
        text_cfg=TEXT | {"embed_cls": True, "output_tokens": True},
        vision_cfg=VISION | POOL | {"attentional_pool": True, "output_tokens": True},
        **changes,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"quick_gelu": True, "init_logit_scale": 1.5, "init_logit_bias": -2.0},
        {"nonscalar_logit_scale": True, "init_logit_bias": -1.0, "pad_id": 0},
    ],
    ids=["plain", "options", "one-element"],
)
def test_the_constructor_gives_the_peers_model_with_its_state_dict_both_ways(changes: dict[str, Any]) -> None:
    mine, peers = ours(**changes).eval(), theirs(**changes).eval()
    for name in ("logit_scale", "logit_bias"):
        if getattr(peers, name) is not None:
            torch.testing.assert_close(mine.state_dict()[name], peers.state_dict()[name])
    assert {key: value.shape for key, value in mine.state_dict().items()} == {
        key: value.shape for key, value in peers.state_dict().items()
    }
    mine.load_state_dict(randomized(peers).state_dict())
    image, text = images(mine, 3), captions(mine, 3)
    with torch.inference_mode():
        torch.testing.assert_close(mine(image, text), peers(image, text), rtol=0, atol=1e-5)
        randomized(peers, seed=1).load_state_dict(mine.state_dict())
        torch.testing.assert_close(mine(image, text), peers(image, text), rtol=0, atol=1e-5)


def test_configs_and_mappings_build_the_same_model() -> None:
    configs = {
        "multimodal_cfg": MultimodalCfg(**DECODER),
        "text_cfg": CLIPTextCfg(**TEXT, **CLASS_TOKEN, pad_id=0),
        "vision_cfg": CLIPVisionCfg(**VISION, **POOL, attentional_pool="single"),
    }
    models = []
    for changes in ({}, configs):
        torch.manual_seed(0)
        models.append(ours(**changes, quick_gelu=True).state_dict())
    torch.testing.assert_close(*models, rtol=0, atol=0)
    assert configs["multimodal_cfg"].activation == "gelu"


def test_it_is_the_model_that_the_architecture_gives() -> None:
    config = {
        "model": "coca",
        "embed_dim": 24,
        "vision": {"tower": "vit", **VISION, **POOL, "attentional_pool": "single"},
        "text": {"tower": "clip-transformer", **TEXT, **CLASS_TOKEN, "pad_id": 0},
        "multimodal": DECODER,
        "tokenizer": {"type": "clip-bpe", "vocab_size": 600},
        "preprocess": {"type": "image"},
    }
    built: Any = zoo.build(config)
    mine = ours().eval()
    mine.load_state_dict(built.state_dict())
    mine.tokenizer = built.tokenizer
    image = images(built, 2)
    assert type(built) is type(mine) is CoCa
    assert torch.equal(mine.generate(image, max_length=8), built.generate(image, max_length=8))
    text = captions(built, 2)
    torch.testing.assert_close(mine(image, text), built(image, text), rtol=0, atol=0)


def test_quick_gelu_and_cast_dtype_reach_all_three_parts() -> None:
    model = ours(quick_gelu=True, cast_dtype=torch.bfloat16)
    for part, blocks in ((model.visual, 2), (model.text, 2), (model.text_decoder, 4)):
        assert sum(isinstance(module, QuickGELU) for module in part.modules()) == blocks
        for module in part.modules():
            for one in module.parameters(recurse=False):
                assert one.dtype == (torch.float32 if isinstance(module, LayerNorm) else torch.bfloat16)
    assert model(images(model), captions(model))["logits"].dtype == torch.bfloat16


def test_the_padding_that_the_class_token_does_not_see_is_the_argument_or_the_configs() -> None:
    assert ours().text.pad_id == 0
    assert ours(pad_id=3).text.pad_id == 3
    assert ours(text_cfg=TEXT | CLASS_TOKEN | {"pad_id": 3}).text.pad_id == 3
    with pytest.raises(ConfigError, match="pad_id: is 4, but text_cfg says 3; say it in one place"):
        ours(text_cfg=TEXT | CLASS_TOKEN | {"pad_id": 3}, pad_id=4)
    with pytest.raises(ConfigError, match="pad_id: is 4, but text_cfg hides no padding"):
        ours(text_cfg=TEXT, pad_id=4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embed_dim": 0}, "embed_dim: must be at least 1, found 0"),
        ({"embed_dim": 16}, "multimodal.width: 24 is not the width 16 of the vision tokens"),
        ({"multimodal_cfg": DECODER | {"widht": 3}}, "widht: unknown key, did you mean 'width'?"),
        ({"multimodal_cfg": DECODER | {"width": 32}}, "multimodal.width: 32 is not the width 24 of the text tokens"),
        ({"text_cfg": TEXT | {"widht": 3}}, "widht: unknown key, did you mean 'width'?"),
        ({"text_cfg": TEXT | {"causal": False, "pool_type": "last"}}, "depend on later ones"),
        ({"text_sees_ahead": True}, "text_sees_ahead: tokens of 'clip-transformer' do not depend on later ones"),
        ({"vision_cfg": VISION}, "multimodal.width: 24 is not the width 32 of the vision tokens"),
        ({"vision_cfg": {"tower": "modified-resnet"}, "quick_gelu": True}, "does not give the decoder its tokens"),
        ({"cast_dtype": torch.int8}, "cast_dtype must be None, float32, float16 or bfloat16"),
        ({"init_logit_scale": 100.0}, "init_logit_scale: must be at most 20"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_argument_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, InputError)) as raised:
        ours(**changes)
    assert message in str(raised.value)
