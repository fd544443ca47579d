"""The vision transformer and every option of it, beside the peer's and beside sums written out in float64."""

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
from open_clip.transformer import VisionTransformer as PeerViT
from torch import Tensor, nn

import zoo
from support.peer import Json, gradients, our_vision, small_vision, twins
from zoo import CLIP, CustomTextCLIP
from zoo_core.errors import CapabilityError, ConfigError
from zoo_core.interfaces import VisionTower
from zoo_core.models.build_tower import build_tower
from zoo_core.nn.position_embedding import sin_cos_2d
from zoo_core.registry import default_registry
from zoo_core.testing import check_component
from zoo_vit.config import ViTConfig
from zoo_vit.tower import VisionTransformer

TOLERANCE = 1e-5
WIDTH, EMBED_DIM = 32, 24
SIZES: Json = {"image_size": [24, 40], "patch_size": 8, "width": WIDTH, "layers": 3, "head_width": 8}
SQUARE: Json = {"image_size": [24, 24]}
PATCHES = 15
MODES = (torch.enable_grad, torch.inference_mode)
TEXT: Json = {"context_length": 6, "vocab_size": 20, "width": 16, "heads": 2, "layers": 2}

Option = tuple[Json, Json]
"""What our config and the peer's constructor call the same thing."""

BLOCKS: dict[str, Option] = {
    name: ({"block": {name: True}}, {name: True})
    for name in ("qk_norm", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")
}
POOLER_SIZES: Json = {"attn_pooler_queries": 5, "attn_pooler_heads": 4}
SINGLE: Option = ({"attentional_pool": "single", **POOLER_SIZES}, {"attentional_pool": True, **POOLER_SIZES})
AVG: Json = {"pool_type": "avg"}
OPTIONS: dict[str, Option] = {
    "plain": ({}, {}),
    "quick_gelu": ({"activation": "quick_gelu"}, {"act_layer": open_clip.transformer.QuickGELU}),
    "gelu_tanh": ({"activation": "gelu_tanh"}, {"act_layer": partial(nn.GELU, approximate="tanh")}),
    "norm_eps": ({"norm_eps": 0.1}, {"norm_layer": partial(PeerNorm, eps=0.1)}),
    "layer scale": ({"ls_init_value": 0.1}, {"ls_init_value": 0.1}),
    "patches that are not square": ({"patch_size": [12, 8]}, {"patch_size": [12, 8]}),
    "mean": (AVG, AVG),
    "norm after pooling": ({"final_ln_after_pool": True}, {"final_ln_after_pool": True}),
    "no norm before": ({"ln_pre": False}, {"no_ln_pre": True}),
    "fixed positions": (SQUARE | {"pos_embed": "sin_cos_2d"}, SQUARE | {"pos_embed_type": "sin_cos_2d"}),
    "single pool": SINGLE,
    **BLOCKS,
}
CLIPA = ("mean", "norm after pooling", "no norm before")
PAIRS = {
    " + ".join(names): tuple(
        {key: value for name in names for key, value in OPTIONS[name][side].items()}
        | ({"block": {key: True for name in names if name in BLOCKS for key in [name]}} if side == 0 else {})
        for side in (0, 1)
    )
    for names in [
        *itertools.combinations(CLIPA, 2),
        CLIPA,
        ("single pool", "mean"),
        ("single pool", "no norm before"),
        *(("single pool", name) for name in BLOCKS),
        *(("layer scale", name) for name in BLOCKS),
        *(("norm_eps", name) for name in BLOCKS),
        *itertools.combinations(BLOCKS, 2),
    ]
}


def tower(*, embed_dim: int = EMBED_DIM, **changes: Any) -> VisionTransformer:
    return VisionTransformer(ViTConfig(**SIZES | changes), embed_dim=embed_dim)


def peer_tower(*, embed_dim: int = EMBED_DIM, **changes: Any) -> PeerViT:
    sizes = {key: value for key, value in SIZES.items() if key != "head_width"}
    options = {"heads": WIDTH // 8, "mlp_ratio": 4.0, "output_dim": embed_dim, "output_tokens": True}
    return PeerViT(**sizes | options | changes)


def pair(option: Any) -> tuple[Any, Any]:
    ours, theirs = option
    return twins(tower(**ours), peer_tower(**theirs))


def images(model: Any, count: int = 2) -> Tensor:
    return torch.randn(count, 3, *model.image_size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


# Beside the peer


@pytest.mark.parametrize("option", (OPTIONS | PAIRS).values(), ids=(OPTIONS | PAIRS).keys())
def test_features_tokens_and_intermediates_are_the_peers(option: Option) -> None:
    ours, theirs = pair(option)
    image = images(ours)
    assert set(ours.state_dict()) == set(theirs.state_dict())
    for mode in MODES:
        with mode():
            features, tokens = theirs(image)
            same(ours(image), features)
            same(ours.forward_tokens(image), (features, tokens))
            for fmt, norm in itertools.product(("NCHW", "NLC"), (False, True)):
                if norm and "attentional_pool" in option[0]:
                    continue  # the peer fails; ours refuses, see below
                options = {"output_fmt": fmt, "normalize_intermediates": norm, "output_extra_tokens": True}
                same(ours.forward_intermediates(image, **options), theirs.forward_intermediates(image, **options))


@pytest.mark.parametrize("pool", ["single", "parallel", "cascade"])
def test_every_attentional_pool_is_the_peers_where_the_peer_can(pool: str) -> None:
    """The peer's parallel and cascade need `width = embed_dim`, and leave a dimension in the feature."""
    theirs_pool = True if pool == "single" else pool
    ours, theirs = twins(
        tower(embed_dim=WIDTH, attentional_pool=pool, **POOLER_SIZES),
        peer_tower(embed_dim=WIDTH, attentional_pool=theirs_pool, **POOLER_SIZES),
    )
    image = images(ours)
    for mode in MODES:
        with mode():
            features, tokens = theirs(image)
            same(ours.forward_tokens(image), (features.reshape(2, WIDTH), tokens))
            same(ours(image), features.reshape(2, WIDTH))
            options = {"normalize_intermediates": True, "intermediates_only": True}
            same(ours.forward_intermediates(image, **options), theirs.forward_intermediates(image, **options))


def native_vits() -> dict[str, tuple[Json, bool]]:
    """Return each distinct vision transformer of the peer's own among its architectures, scaled down."""
    found: dict[str, tuple[Json, bool]] = {}
    for name in open_clip.list_models():
        config: Any = open_clip.get_model_config(name)
        section = config["vision_cfg"]
        if "timm_model_name" not in section and isinstance(section["layers"], int):
            key = small_vision(section), config.get("quick_gelu", False)
            if key not in found.values():
                found[name] = key
    return found


@pytest.mark.parametrize("given", native_vits().values(), ids=native_vits().keys())
def test_every_vision_transformer_of_the_peers_zoo_gives_its_features(given: tuple[Json, bool]) -> None:
    section, quick_gelu = given
    config = ViTConfig(**our_vision(section, quick_gelu))
    model = open_clip.model._build_vision_tower(EMBED_DIM, section, quick_gelu)
    ours, theirs = twins(VisionTransformer(config, embed_dim=EMBED_DIM), model)
    with torch.inference_mode():
        features = theirs(images(ours))
        same(ours(images(ours)), features[0] if isinstance(features, tuple) else features)
    assert config.parameter_count(EMBED_DIM) == sum(parameter.numel() for parameter in theirs.parameters())


@pytest.mark.parametrize("name", ["plain", "mean", "single pool", *BLOCKS, "single pool + qk_norm"])
def test_one_checkpointed_backward_gives_the_peers_gradients(name: str) -> None:
    """The peer cannot checkpoint blocks with options; its gradients come without."""
    ours, theirs = pair((OPTIONS | PAIRS)[name])
    ours.train().set_grad_checkpointing()
    ours(images(ours)).square().mean().backward()
    theirs.train()(images(ours))[0].square().mean().backward()
    assert all(gradient is not None and gradient.any() for gradient in gradients(ours).values())
    same(gradients(ours), gradients(theirs))


# Positions


def brute_force_positions(rows: int, columns: int, width: int) -> Tensor:
    quarter = width // 4
    table = []
    for row, column in itertools.product(range(rows), range(columns)):
        angles = [place / 10_000 ** (step / quarter) for place in (column, row) for step in range(quarter)]
        table.append(
            [math.sin(angle) for angle in angles[:quarter]]
            + [math.cos(angle) for angle in angles[:quarter]]
            + [math.sin(angle) for angle in angles[quarter:]]
            + [math.cos(angle) for angle in angles[quarter:]]
        )
    return torch.tensor(table, dtype=torch.float64)


@pytest.mark.parametrize(("rows", "columns", "width"), [(3, 5, 32), (5, 3, 8), (1, 4, 12), (14, 14, 64)])
def test_fixed_positions_are_sines_and_cosines_of_column_and_row(rows: int, columns: int, width: int) -> None:
    found = sin_cos_2d(rows, columns, width)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, brute_force_positions(rows, columns, width).float(), rtol=0, atol=1e-7)


def test_fixed_positions_are_those_of_the_grid_and_never_move() -> None:
    """The peer refuses images that are not square here."""
    model = tower(pos_embed="sin_cos_2d")
    fixed = torch.cat([torch.zeros(1, WIDTH), brute_force_positions(3, 5, WIDTH).float()])
    same(model.state_dict()["positional_embedding"], fixed)
    assert "positional_embedding" not in dict(model.named_parameters()).keys() | model.no_weight_decay()
    model.lock()
    model.lock(unlocked_groups=100)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(images(model)).square().sum().backward()
    optimizer.step()
    same(model.positional_embedding, fixed)


# Attentional pooling


def test_normed_intermediates_are_refused_where_the_final_norm_has_another_width() -> None:
    model = tower(attentional_pool="single", **POOLER_SIZES).eval()
    with pytest.raises(CapabilityError, match="takes 24 channels, the blocks give 32; ask for intermediates without"):
        model.forward_intermediates(images(model), normalize_intermediates=True)
    assert len(model.forward_intermediates(images(model))["image_intermediates"]) == 3


@pytest.mark.parametrize("pool", ["parallel", "cascade"])
def test_pools_beside_the_tokens_work_in_any_width(pool: str) -> None:
    """What the feature reads: the tokens of the blocks, or what the other queries gave."""
    model = tower(attentional_pool=pool, **POOLER_SIZES).eval()
    assert model.attn_pool is not None
    with torch.no_grad():
        features, tokens = model.forward_tokens(images(model))
        model.attn_pool.attn.out_proj.weight.mul_(2)
        moved = model(images(model))
    assert features.shape == (2, EMBED_DIM)
    assert tokens.shape == (2, POOLER_SIZES["attn_pooler_queries"], EMBED_DIM)
    assert torch.equal(moved, features) is (pool == "parallel")


@pytest.mark.parametrize("pool", ["single", "parallel", "cascade"])
def test_the_pools_are_unlocked_with_the_last_block(pool: str) -> None:
    """The peer never unlocks them."""
    model = tower(attentional_pool=pool, **POOLER_SIZES)
    model.lock(1)
    assert {name for name, one in model.named_parameters() if one.requires_grad} == {"proj"}
    model.lock(2)
    trainable = {name.split(".")[0] for name, one in model.named_parameters() if one.requires_grad}
    assert trainable == {"proj", "ln_post", "attn_pool", "transformer"} | (
        set() if pool == "single" else {"attn_pool_contrastive"}
    )


@pytest.mark.parametrize("pool", ["single", "cascade"])
def test_bfloat16_matrices_give_the_features_of_float32(pool: str) -> None:
    """The peer's pools stay in float32 there, and fail."""
    vision = SIZES | {"attentional_pool": pool, **POOLER_SIZES, "pos_embed": "sin_cos_2d"}
    vision["block"] = {"scaled_cosine": True, "scale_heads": True, "scale_attn_inner": True, "scale_fc": True}
    exact = CustomTextCLIP(EMBED_DIM, vision, TEXT).eval()
    half = CustomTextCLIP(EMBED_DIM, vision, TEXT, cast_dtype=torch.bfloat16).eval()
    half.load_state_dict(exact.state_dict())
    image = images(exact.visual)
    with torch.inference_mode():
        found, expected = half.encode_image(image), exact.encode_image(image)
    assert found.dtype == torch.bfloat16
    assert F.cosine_similarity(found.float(), expected).min() > 0.999


def test_autocast_runs_every_option() -> None:
    block = {"scaled_cosine": True, "scale_heads": True, "scale_attn_inner": True, "scale_attn": True, "scale_fc": True}
    model = tower(attentional_pool="single", **POOLER_SIZES, block=block).eval()
    with torch.inference_mode():
        expected = model(images(model))
        with torch.autocast("cpu", torch.bfloat16):
            found = model(images(model))
    assert F.cosine_similarity(found.float(), expected).min() > 0.999


def test_the_mean_leaves_the_class_token_and_dropped_patches_out() -> None:
    model = tower(pool_type="avg", patch_dropout=0.5, final_ln_after_pool=True).train()
    seen: list[Tensor] = []
    model.transformer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    found = model(images(model))
    (tokens,) = seen
    assert tokens.shape[1] == 1 + PATCHES // 2
    same(found, model.ln_post(tokens[:, 1:].mean(dim=1)) @ model.proj)


# Promises, compilation, refusals

KIT: list[Json] = [
    {"pool_type": "avg", "final_ln_after_pool": True, "ln_pre": False},
    {"pool_type": "avg", "patch_dropout": 0.5, "block": {"qk_norm": True}},
    {"pos_embed": "sin_cos_2d", "block": {"scaled_cosine": True, "scale_heads": True}},
    {"attentional_pool": "single", "attn_pooler_queries": 3, "attn_pooler_heads": 2},
    {"attentional_pool": "single", "pool_type": "avg", "attn_pooler_queries": 2, "block": {"scale_attn_inner": True}},
    {"attentional_pool": "parallel", "attn_pooler_queries": 1, "block": {"scale_attn": True, "scale_fc": True}},
    {"attentional_pool": "cascade", "attn_pooler_queries": 4, "pos_embed": "sin_cos_2d", "ln_pre": False},
    {"block": dict.fromkeys(("qk_norm", *BLOCKS), True), "ls_init_value": 0.1, "mlp_ratio": 1.3},
]


@pytest.mark.parametrize("values", KIT, ids=str)
def test_every_promise_is_kept(values: Json) -> None:
    check_component(default_registry().get("vision-tower", "vit"), SIZES | values)


@pytest.mark.parametrize("values", KIT, ids=str)
def test_one_graph_holds_the_whole_tower(values: Json) -> None:
    model = tower(**values | {"layers": 1}).eval()
    torch.compiler.reset()
    compiled: Any = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        same(compiled(images(model)), model(images(model)))
    torch.compiler.reset()


BAD: list[tuple[Json, str]] = [
    ({"head_width": 24}, "head_width: 24 does not divide the width 32"),
    ({"image_size": [24, 44]}, "patch_size: 8 does not divide the image width 44"),
    ({"pool_type": "none"}, "pool_type: 'none' is not known (allowed: avg, tok)"),
    ({"pos_embed": "rope"}, "pos_embed: 'rope' is not known (allowed: learnable, sin_cos_2d)"),
    ({"pos_embed": "sin_cos_2d", "width": 30, "head_width": 10}, "needs a width that 4 divides, found 30"),
    ({"attentional_pool": "serial"}, "attentional_pool: 'serial' is not known"),
    ({"attentional_pool": True}, "attentional_pool: True is not known"),
    ({"attn_pooler_queries": 8}, "attn_pooler_queries: there is no attentional_pool; set attentional_pool: single"),
    ({"attn_pooler_heads": 4}, "attn_pooler_heads: there is no attentional_pool"),
    ({"attentional_pool": "single", "attn_pooler_heads": 5}, "attn_pooler_heads: 5 does not divide embed_dim = 24"),
    (
        {"attentional_pool": "single", "final_ln_after_pool": True},
        "final_ln_after_pool: attentional_pool has a place of its own for the norm; leave this out",
    ),
    ({"attentional_pool": "cascade", **AVG}, "pool_type: attentional_pool 'cascade' reads the feature with a query"),
    ({"attentional_pool": "single", **AVG, "attn_pooler_queries": 1}, "attn_pooler_queries: pool_type 'avg' is the"),
    ({"attentional_pool": "single", "attn_pooler_queries": 0}, "attn_pooler_queries: must be at least 1, found 0"),
    ({"block": {"qk_norm": True, "scaled_cosine": True}}, "block.qk_norm: scaled_cosine already brings queries"),
    ({"block": {"scale_ff": True}}, "block.scale_ff: unknown key, did you mean 'scale_fc'?"),
    ({"ln_pre": "no"}, "ln_pre: expected true or false, found 'no'"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[message for _, message in BAD])
def test_what_does_not_go_together_is_told(changes: Json, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_tower(default_registry(), ViTConfig(**SIZES | changes), EMBED_DIM, VisionTower)
    assert message in str(caught.value)


def test_overrides_reach_the_options_of_blocks() -> None:
    small = ["vision.layers=1", "vision.width=64", "text.layers=1", "text.width=64", "text.heads=2"]
    options = ["vision.block.qk_norm=true", "text.block.scale_fc=true", "vision.attentional_pool=single"]
    model = zoo.build("vit-b32", overrides=[*small, *options])
    assert {"visual.attn_pool.query", "visual.transformer.resblocks.0.attn.ln_q.weight"} <= set(model.state_dict())
    assert "transformer.resblocks.0.mlp.ln.weight" in model.state_dict()
    assert isinstance(model, CLIP)
    assert model.config is not None
    assert zoo.config(model.config.data()) == model.config
