"""The text transformer and every option of it, beside the peer's and beside sums written out in float64."""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.transformer import LayerNorm as PeerNorm
from open_clip.transformer import TextTransformer as PeerText
from torch import Tensor, nn

from support.peer import Json, our_text, small_text, twins
from zoo import CLIP, CustomTextCLIP
from zoo_core.config.block import BlockConfig
from zoo_core.errors import ConfigError, InputError
from zoo_core.interfaces import TextTower
from zoo_core.models.build_tower import build_tower
from zoo_core.nn.attention import Attention
from zoo_core.registry import default_registry
from zoo_core.testing import check_component
from zoo_text.clip.config import ClipTextConfig
from zoo_text.clip.tower import TextTransformer

TOLERANCE = 1e-5
WIDTH, EMBED_DIM, LENGTH, VOCABULARY, EOS = 24, 16, 9, 50, 7
SIZES: Json = {"context_length": LENGTH, "vocab_size": VOCABULARY, "width": WIDTH, "heads": 3, "layers": 3}
MODES = (torch.enable_grad, torch.inference_mode)

Option = tuple[Json, Json]
"""What our config and the peer's constructor call the same thing."""

BLOCKS: dict[str, Option] = {
    name: ({"block": {name: True}}, {name: True})
    for name in ("qk_norm", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")
}
LAST: Json = {"pool_type": "last"}
OPTIONS: dict[str, Option] = {
    "plain": ({}, {}),
    "quick_gelu": ({"activation": "quick_gelu"}, {"act_layer": open_clip.transformer.QuickGELU}),
    "gelu_tanh": ({"activation": "gelu_tanh"}, {"act_layer": partial(nn.GELU, approximate="tanh")}),
    "norm_eps": ({"norm_eps": 0.1}, {"norm_layer": partial(PeerNorm, eps=0.1)}),
    "layer scale": ({"ls_init_value": 0.1}, {"ls_init_value": 0.1}),
    "mlp_ratio": ({"mlp_ratio": 1.55}, {"mlp_ratio": 1.55}),
    "bidirectional": ({"causal": False}, {"no_causal_mask": True}),
    "eos": ({"pool_type": "eos", "eos_id": EOS}, {"pool_type": "eos", "eos_id": EOS}),
    "first": ({"pool_type": "first", "causal": False}, {"pool_type": "first", "no_causal_mask": True}),
    "last": (LAST, LAST),
    "last of all": (LAST | {"causal": False}, LAST | {"no_causal_mask": True}),
    "bias": ({"proj_bias": True}, {"proj_bias": True}),
    "pad mask": (
        {"causal": False, "pad_mask": True, "pad_id": 0},
        {"no_causal_mask": True, "use_pad_mask": True, "pad_id": 0},
    ),
    "class token": ({"class_token": True, **LAST, "pad_id": 0}, {"embed_cls": True, "pad_id": 0}),
    "class token, exact mask": (
        {"class_token": True, **LAST, "pad_id": 0, "class_token_mask": "exact"},
        {"embed_cls": True, "pad_id": 0, "correct_cls_mask": True},
    ),
    "bidirectional class token": (
        {"class_token": True, **LAST, "pad_id": 3, "causal": False},
        {"embed_cls": True, "pad_id": 3, "no_causal_mask": True},
    ),
    **BLOCKS,
}
PAIRS = {
    f"{one} + {other}": (
        OPTIONS[one][0] | OPTIONS[other][0] | {"block": _merged},
        OPTIONS[one][1] | OPTIONS[other][1],
    )
    for one, other in [
        *itertools.combinations(BLOCKS, 2),
        *((one, other) for one in ("class token", "pad mask", "bias", "layer scale", "norm_eps") for other in BLOCKS),
    ]
    for _merged in [OPTIONS[one][0].get("block", {}) | OPTIONS[other][0].get("block", {})]
}


def tower(**changes: Any) -> TextTransformer:
    return TextTransformer(ClipTextConfig(**SIZES | changes), embed_dim=changes.get("width", EMBED_DIM))


def pair(option: Option) -> tuple[Any, Any]:
    ours, theirs = option
    sizes = SIZES | {"output_dim": EMBED_DIM, "output_tokens": True}
    return twins(tower(**ours), PeerText(**sizes | theirs))


def texts(pad: int = 0) -> Tensor:
    """Return rows with the end-of-text id at the start, in between (twice) and at the end, and larger ids around."""
    text = torch.full((4, LENGTH), pad)
    for row, end in zip(text, (1, 3, 5, LENGTH - 1), strict=True):
        row[:end] = torch.randint(EOS + 1, VOCABULARY, (end,), generator=torch.Generator().manual_seed(end))
        row[end] = EOS
    text[2, 6] = EOS
    return text


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


# Beside the peer


@pytest.mark.parametrize("option", (OPTIONS | PAIRS).values(), ids=(OPTIONS | PAIRS).keys())
def test_features_tokens_and_intermediates_are_the_peers(option: Option) -> None:
    ours, theirs = pair(option)
    text = texts(option[0].get("pad_id", 0))
    assert set(ours.state_dict()) == set(theirs.state_dict())
    for mode in MODES:
        with mode():
            features, tokens = theirs(text)
            same(ours(text), features)
            same(ours.forward_tokens(text), (features, tokens))
            for norm in (False, True):
                options = {"normalize_intermediates": norm, "output_fmt": "NLC", "output_extra_tokens": True}
                same(ours.forward_intermediates(text, **options), theirs.forward_intermediates(text, **options))


def native_texts() -> dict[str, tuple[Json, bool]]:
    """Return each distinct text transformer of the peer's own among its architectures, scaled down."""
    found: dict[str, tuple[Json, bool]] = {}
    for name in open_clip.list_models():
        config: Any = open_clip.get_model_config(name)
        if "hf_model_name" not in config["text_cfg"]:
            key = small_text(config["text_cfg"]), config.get("quick_gelu", False)
            if key not in found.values():
                found[name] = key
    return found


@pytest.mark.parametrize("given", native_texts().values(), ids=native_texts().keys())
def test_every_text_transformer_of_the_peers_zoo_gives_its_features(given: tuple[Json, bool]) -> None:
    section, quick_gelu = given
    config = ClipTextConfig(**our_text(section, quick_gelu))
    embed_dim = config.width if config.proj_type == "none" else EMBED_DIM
    model = open_clip.model._build_text_tower(embed_dim, section, quick_gelu)
    ours, theirs = twins(TextTransformer(config, embed_dim=embed_dim), model)
    text = torch.randint(4, config.vocab_size, (2, config.context_length), generator=torch.Generator().manual_seed(0))
    text[0, 5], text[1, -1] = (config.vocab_size - 1 if config.eos_id is None else config.eos_id,) * 2
    text[0, 6:] = 0
    with torch.inference_mode():
        features = theirs(text)
        same(ours(text), features[0] if isinstance(features, tuple) else features)
    assert config.parameter_count(embed_dim) == sum(parameter.numel() for parameter in theirs.parameters())


@pytest.mark.parametrize("name", ["plain", "class token", "bias", *BLOCKS, "qk_norm + scale_fc"])
def test_one_checkpointed_backward_gives_the_peers_gradients(name: str) -> None:
    """The peer cannot checkpoint blocks with options; its gradients come without."""
    ours, theirs = pair((OPTIONS | PAIRS)[name])
    ours.train().set_grad_checkpointing()
    ours(texts()).square().mean().backward()
    theirs.train()(texts())[0].square().mean().backward()
    found = {key: value.grad for key, value in ours.state_dict(keep_vars=True).items()}
    expected = {key: value.grad for key, value in theirs.state_dict(keep_vars=True).items()}
    assert all(gradient is not None and gradient.any() for gradient in found.values())
    same(found, expected)


@pytest.mark.parametrize("unlocked", range(7))
@pytest.mark.parametrize("name", ["class token", "bias"])
def test_locking_leaves_trainable_what_the_peers_does(name: str, unlocked: int) -> None:
    ours, theirs = pair(OPTIONS[name])
    ours.lock(unlocked)
    theirs.lock(unlocked)
    assert {key: value.requires_grad for key, value in ours.state_dict(keep_vars=True).items()} == {
        key: value.requires_grad for key, value in theirs.state_dict(keep_vars=True).items()
    }
    assert ours.no_weight_decay() == theirs.no_weight_decay()


# Attention, summed up in float64


def attend(x: Tensor, state: dict[str, Tensor], heads: int, options: BlockConfig, seen: Tensor) -> Tensor:
    """Return what attention is by its formulas, one head and one query at a time; `seen` is `[B, N, N]`."""
    batch, tokens, width = x.shape
    size = width // heads
    query, key, value = (x @ state["in_proj_weight"].T + state["in_proj_bias"]).split(width, dim=-1)
    out = torch.zeros_like(x)
    for row, head in itertools.product(range(batch), range(heads)):
        part = slice(head * size, (head + 1) * size)
        queries, keys, values = query[row, :, part], key[row, :, part], value[row, :, part]
        if options.qk_norm:
            queries = norm(queries, state["ln_q.weight"], state["ln_q.bias"])
            keys = norm(keys, state["ln_k.weight"], state["ln_k.bias"])
        for place in range(tokens):
            if options.scaled_cosine:
                scale = min(math.exp(state["logit_scale"][head].item()), 100.0)
                cosines = (keys @ queries[place]) / (keys.square().sum(-1) * queries[place].square().sum()).sqrt()
                logits = cosines * scale
            else:
                logits = keys @ queries[place] / size**0.5
            weights = logits.exp() * seen[row, place]
            mixed = (weights[:, None] * values).sum(0) / weights.sum()
            out[row, place, part] = mixed * state["head_scale"][head] if options.scale_heads else mixed
    if options.scale_attn_inner:
        out = norm(out, state["ln_inner.weight"], state["ln_inner.bias"])
    return out @ state["out_proj.weight"].T + state["out_proj.bias"]


def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("scaled_cosine",),
        ("scaled_cosine", "scale_heads"),
        ("scaled_cosine", "scale_attn_inner"),
        ("qk_norm", "scale_heads", "scale_attn_inner"),
    ],
    ids="+".join,
)
@pytest.mark.parametrize("visibility", ["all", "causal", "mask"])
def test_attention_is_its_formula(names: tuple[str, ...], visibility: str) -> None:
    options = BlockConfig(**dict.fromkeys(names, True))
    attention = Attention(12, 3, options).double()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, dtype=torch.float64))
        if attention.logit_scale is not None:
            attention.logit_scale.copy_(torch.tensor([0.7, 2.3, 50.0]).view(3, 1, 1))  # the last is clamped to ln 100
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    seen = torch.ones(2, 5, 5, dtype=torch.bool)
    if visibility == "causal":
        seen = seen.tril()
    if visibility == "mask":
        seen[1, :, 3:] = False
    mask = seen[:, None] if visibility == "mask" else None
    expected = attend(x, attention.state_dict(), 3, options, seen)
    with torch.no_grad():
        torch.testing.assert_close(attention(x, visibility == "causal", mask), expected, rtol=0, atol=1e-10)
        found = attention.float()(x.float(), visibility == "causal", mask)
        torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=TOLERANCE)  # logits reach 100


def test_the_scale_of_cosine_attention_starts_at_ten_and_learns() -> None:
    attention = Attention(12, 3, BlockConfig(scaled_cosine=True))
    assert attention.logit_scale is not None
    same(attention.logit_scale.exp(), torch.full((3, 1, 1), 10.0))
    attention(torch.randn(2, 5, 12)).square().sum().backward()
    assert attention.logit_scale.grad is not None
    assert attention.logit_scale.grad.all()


# What the features may depend on


def test_no_feature_is_read_where_the_end_of_text_is_missing() -> None:
    """The peer reads the first position then, which in a causal tower is the same for every caption."""
    model = tower(pool_type="eos", eos_id=EOS)
    text = texts()
    text[1] = 9
    with pytest.raises(InputError, match="row 1 of the token ids has no end-of-text id 7, where the feature is read"):
        model(text)
    torch.compiler.reset()
    compiled: Any = torch.compile(model, backend="eager", fullgraph=True)
    missing = compiled(text).isnan().all(dim=-1)
    assert missing.tolist() == [False, True, False, False]
    torch.compiler.reset()


@pytest.mark.parametrize("changes", [{}, {"pool_type": "eos", "eos_id": EOS}], ids=["argmax", "eos"])
def test_rows_without_what_follows_the_end_have_the_same_features(changes: Json) -> None:
    model = CLIP(EMBED_DIM, vision(), SIZES | changes).eval()
    text = texts()[:3]
    text[text == EOS] = VOCABULARY - 1 if not changes else EOS
    text[:, 7:] = 0
    assert model.text is not None
    assert model.text.variable_text_length
    same(model.encode_text(text[:, :7]), model.encode_text(text))


@pytest.mark.parametrize(
    "changes", [LAST, {"causal": False}, {"class_token": True, **LAST, "pad_id": 0}], ids=["last", "both ways", "class"]
)
def test_other_towers_refuse_rows_that_are_short(changes: Json) -> None:
    model = CLIP(EMBED_DIM, vision(), SIZES | changes).eval()
    assert model.encode_text(texts()).shape == (4, EMBED_DIM)
    with pytest.raises(InputError, match="expected exactly 9 tokens in each row"):
        model.encode_text(texts()[:, :8])


def vision() -> Json:
    return {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8}


def test_padding_does_not_reach_the_feature_of_a_masked_tower() -> None:
    masked = tower(causal=False, pool_type="first", pad_mask=True, pad_id=0).eval()
    unmasked = tower(causal=False, pool_type="first").eval()
    text = texts()[1:2]
    with torch.no_grad():
        for model, reached in ((masked, False), (unmasked, True)):
            before = model(text)
            model.positional_embedding[4:] += 1  # only padding stands there
            assert torch.equal(model(text), before) is not reached


@pytest.mark.parametrize(("mask", "first_padding_seen"), [("published", True), ("exact", False)])
def test_the_published_mask_of_the_class_token_stands_one_position_late(mask: str, first_padding_seen: bool) -> None:
    model = tower(class_token=True, pool_type="last", pad_id=0, class_token_mask=mask).eval()
    text = texts()[1:2]  # four tokens, then padding
    with torch.no_grad():
        before = model(text)
        model.positional_embedding[5:LENGTH] += 1
        assert torch.equal(model(text), before), "later padding is hidden in both"
        model.positional_embedding[4] += 1
        assert torch.equal(model(text), before) is not first_padding_seen


def test_a_row_of_padding_alone_gives_finite_features_and_gradients() -> None:
    model = tower(causal=False, pad_mask=True, pad_id=0)
    features = model(torch.zeros(2, LENGTH, dtype=torch.int64))
    features.sum().backward()
    assert features.isfinite().all()
    assert all(one.grad is None or one.grad.isfinite().all() for one in model.parameters())


def test_a_class_token_works_in_clip_and_its_intermediates_come_apart() -> None:
    """In the peer's CLIP, such a tower fails at its first caption."""
    model = CLIP(EMBED_DIM, vision(), SIZES | {"class_token": True, **LAST, "pad_id": 0}).eval()
    assert "cls_emb" in model.state_dict()
    found = model.forward_intermediates(text=texts(), text_output_extra_tokens=True)
    assert [one.shape for one in found["text_intermediates"]] == [(4, LENGTH, WIDTH)] * 3
    assert [one.shape for one in found["text_intermediates_suffix"]] == [(4, 1, WIDTH)] * 3


def test_bfloat16_matrices_give_the_features_of_float32() -> None:
    text = SIZES | {"class_token": True, **LAST, "pad_id": 0, "proj_bias": True}
    text["block"] = {"scaled_cosine": True, "scale_heads": True, "scale_attn_inner": True, "scale_fc": True}
    exact = CustomTextCLIP(EMBED_DIM, vision(), text).eval()
    half = CustomTextCLIP(EMBED_DIM, vision(), text, cast_dtype=torch.bfloat16).eval()
    half.load_state_dict(exact.state_dict())
    with torch.inference_mode():
        found, expected = half.encode_text(texts()), exact.encode_text(texts())
    assert found.dtype == torch.bfloat16
    assert F.cosine_similarity(found.float(), expected).min() > 0.999


# Promises, compilation, refusals

KIT: list[Json] = [
    {"pool_type": "eos", "eos_id": VOCABULARY - 1, "block": {"qk_norm": True}},
    {"pool_type": "first", "causal": False, "proj_bias": True, "block": {"scaled_cosine": True}},
    {"pool_type": "last", "causal": False, "width": 16, "heads": 2, "proj_type": "none"},
    {"class_token": True, "pool_type": "last", "pad_id": 0, "block": {"scale_heads": True, "scale_attn_inner": True}},
    {"class_token": True, "pool_type": "last", "pad_id": 0, "causal": False, "class_token_mask": "exact"},
    {"causal": False, "pad_mask": True, "pad_id": 1, "block": {"scale_attn": True, "scale_fc": True}},
    {"block": dict.fromkeys(("qk_norm", *BLOCKS), True), "ls_init_value": 0.1, "mlp_ratio": 1.3},
]


@pytest.mark.parametrize("values", KIT, ids=str)
def test_every_promise_is_kept(values: Json) -> None:
    check_component(default_registry().get("text-tower", "clip-transformer"), SIZES | values)


@pytest.mark.parametrize("values", KIT, ids=str)
def test_one_graph_holds_the_whole_tower(values: Json) -> None:
    model = tower(**values | {"layers": 1}).eval()
    text = texts()
    text[:, -1] = VOCABULARY - 1
    torch.compiler.reset()
    compiled: Any = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        same(compiled(text), model(text))
    torch.compiler.reset()


BAD: list[tuple[Json, str]] = [
    ({"heads": 5}, "heads: 5 does not divide the width 24"),
    ({"pool_type": "eos"}, "eos_id: pool_type 'eos' needs the id of the end-of-text token"),
    ({"eos_id": 7}, "eos_id: pool_type 'argmax' does not read it; set pool_type: eos, or leave it out"),
    ({"pool_type": "eos", "eos_id": 50}, "eos_id: 50 is not in the vocabulary, whose ids run from 0 to 49"),
    ({"pool_type": "eos", "eos_id": -1}, "eos_id: must be at least 0, found -1"),
    ({"pool_type": "first"}, "pool_type: the first token of a causal tower sees no other; set causal: false"),
    ({"class_token": True, "pad_id": 0}, "pool_type: a class_token stands last and is pooled there; set pool_type"),
    ({"class_token": True, **LAST}, "pad_id: class_token needs the id of the padding"),
    ({"class_token": True, **LAST, "pad_id": 50}, "pad_id: 50 is not in the vocabulary"),
    ({"class_token": True, **LAST, "pad_id": 0, "pad_mask": True}, "pad_mask: class_token hides padding already"),
    ({"pad_mask": True, "pad_id": 0}, "pad_mask: a causal tower has no padding mask; set causal: false"),
    ({"pad_mask": True, "causal": False}, "pad_id: pad_mask needs the id of the padding"),
    ({"pad_id": 0}, "pad_id: nothing reads it; set class_token or pad_mask, or leave it out"),
    ({"class_token_mask": "exact"}, "class_token_mask: there is no class_token; set class_token: true"),
    ({"proj_type": "none", "proj_bias": True}, "proj_bias: there is no projection to give a bias"),
    ({"proj_type": "none"}, "proj_type: 'none' makes the width 24 the feature, which must have embed_dim = 16"),
    ({"block": {"qk_norm": True, "scaled_cosine": True}}, "block.qk_norm: scaled_cosine already brings queries"),
    ({"block": {"qknorm": True}}, "block.qknorm: unknown key, did you mean 'qk_norm'?"),
    ({"block": True}, "block: expected a section of keys, found True"),
    ({"block": {"scale_fc": 1}}, "block.scale_fc: expected true or false, found 1"),
    ({"layers": 0}, "layers: must be at least 1, found 0"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[message for _, message in BAD])
def test_what_does_not_go_together_is_told(changes: Json, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_tower(default_registry(), ClipTextConfig(**SIZES | changes), EMBED_DIM, TextTower)
    assert message in str(caught.value)
