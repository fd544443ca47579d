"""The timm tower against open_clip 3.3.0's and against timm itself, backbone family by backbone family.

The families' own backbones are registered with timm here once more, at toy size, so that both sides build them by
name; weights are shared through state dicts, loaded strictly in both directions.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from open_clip.timm_model import TimmModel
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import zoo
from support.models.tiny_configs import TINY
from support.peer import captions, images, peer_json, randomized
from zoo.building.assemble import assemble
from zoo_core.errors import CapabilityError, ConfigError, InputError
from zoo_timm.config import TimmConfig
from zoo_timm.tower import TimmTower

torch.set_num_threads(1)

TOLERANCE = 1e-5
EMBED = 24


def _register(name: str, origin: str, **small: Any) -> None:
    """Register `origin` once more as `name`, with sizes that a test can afford."""

    def entry(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return timm.create_model(origin, **{**small, **kwargs})

    entry.__name__ = name
    entry.__module__ = __name__
    timm.models.register_model(entry)


_SMALL_VIT = {"img_size": 64, "embed_dim": 64, "depth": 3, "num_heads": 2}
_register("toy_swin", "swin_tiny_patch4_window7_224", img_size=56, embed_dim=16, depths=(1, 2), num_heads=(1, 2))
_register("toy_vitamin", "vitamin_small_224", img_size=64, depth=2)
_register("toy_eva01", "eva_giant_patch14_224", **{**_SMALL_VIT, "img_size": 56})
_register("toy_eva02", "eva02_base_patch16_clip_224", **_SMALL_VIT)
_register("toy_pe", "vit_pe_core_tiny_patch16_384", **_SMALL_VIT)
_register("toy_siglip", "vit_base_patch16_siglip_224", **_SMALL_VIT)
_register("toy_relpos", "vit_relpos_medium_patch16_cls_224", **_SMALL_VIT)
_register("toy_gap", "vit_medium_patch16_gap_256", **_SMALL_VIT)
_register("toy_unpooled", "test_vit", global_pool="")
_register("toy_fastvit", "fastvit_mci0", layers=(1, 1, 1, 1), embed_dims=(32, 64, 128, 256))

TOWERS: dict[str, dict[str, Any]] = {
    "convnext": {"name": "test_convnext", "image_size": 64},
    "convnext mlp": {"name": "test_convnext", "image_size": 64, "proj": "mlp", "proj_bias": True},
    "convnext max": {"name": "test_convnext", "image_size": 64, "pool": "max", "proj_bias": True},
    "vitamin": {"name": "toy_vitamin", "image_size": 64},
    "swin": {"name": "toy_swin", "image_size": 56},
    "gap": {"name": "toy_gap", "image_size": 64},
    "relpos": {"name": "toy_relpos", "image_size": 64},
    "eva01": {"name": "toy_eva01", "image_size": 56, "pool": "token", "proj": "head"},
    "eva02": {"name": "toy_eva02", "image_size": 64, "pool": "token", "proj": "head"},
    "pe": {"name": "toy_pe", "image_size": 64, "pool": "map", "proj": "head"},
    "siglip": {"name": "toy_siglip", "image_size": 64, "pool": "map", "proj": "none"},
    "fastvit": {"name": "toy_fastvit", "image_size": 64, "pool": "avg", "proj": "head"},
    "vit": {"name": "test_vit", "image_size": 160, "pool": "avg"},
    "resnet": {"name": "test_resnet", "image_size": 64},
    "resnet head": {"name": "test_resnet", "image_size": 64, "pool": "avg", "proj": "head"},
    "absolute attention": {"name": "test_efficientnet", "image_size": 160, "pool": "abs_attn", "proj": "none"},
    "rotary attention": {"name": "test_efficientnet", "image_size": 160, "pool": "rot_attn", "proj": "linear"},
}
"""Family -> config of a tower of it."""

WIDTHS = {"siglip": 64}


def tower(values: dict[str, Any], embed_dim: int = EMBED) -> TimmTower:
    return TimmTower(TimmConfig.parse(values), embed_dim=embed_dim).eval()


def peer(values: dict[str, Any], embed_dim: int = EMBED) -> Any:
    given = {key: value for key, value in values.items() if key not in ("name", "pool", "proj")}
    proj = values.get("proj", "linear")
    return TimmModel(
        values["name"],
        embed_dim=embed_dim,
        pool=values.get("pool") or "",
        proj="" if proj == "head" else proj,
        **given,
    ).eval()


@pytest.fixture(scope="module", params=TOWERS)
def pair(request: pytest.FixtureRequest) -> tuple[TimmTower, Any]:
    """Return our tower of a family and the peer's, with the same weights."""
    family: str = request.param
    width = WIDTHS.get(family, EMBED)
    ours, theirs = tower(TOWERS[family], width), randomized(peer(TOWERS[family], width))
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def pictures(ours: TimmTower, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, *ours.image_size, generator=torch.Generator().manual_seed(0))


def same(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


# Beside the peer


@torch.inference_mode()
def test_features_are_the_peers(pair: tuple[TimmTower, Any]) -> None:
    ours, theirs = pair
    features = ours(pictures(ours))
    assert features.std() > 1e-3
    same(features, theirs(pictures(ours)))


def test_the_state_dict_is_the_peers_in_both_directions(pair: tuple[TimmTower, Any]) -> None:
    ours, theirs = pair
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())


@torch.inference_mode()
def test_intermediates_are_the_peers(pair: tuple[TimmTower, Any]) -> None:
    ours, theirs = pair
    image = pictures(ours)
    for indices in (None, 1, 2, [0, -1], [-2]):
        for norm in (False, True):
            for only in (False, True):
                options = {"indices": indices, "normalize_intermediates": norm, "intermediates_only": only}
                same(ours.forward_intermediates(image, **options), theirs.forward_intermediates(image, **options))


@torch.inference_mode()
def test_tokens_and_prefixes_are_the_peers_where_there_are_any() -> None:
    for family, prefixes in (("vit", 1), ("eva02", 1), ("gap", 0), ("siglip", 0)):
        width = WIDTHS.get(family, EMBED)
        ours, theirs = tower(TOWERS[family], width), peer(TOWERS[family], width)
        ours.load_state_dict(theirs.state_dict())
        image = pictures(ours)
        options = {"output_fmt": "NLC", "output_extra_tokens": True}
        found, expected = ours.forward_intermediates(image, **options), theirs.forward_intermediates(image, **options)
        assert ("image_intermediates_prefix" in found) == bool(prefixes)
        same(found, expected)
        features, tokens = ours.forward_tokens(image)
        same(features, theirs(image))
        same(tokens, theirs.trunk.forward_features(image)[:, prefixes:])


def test_gradients_are_the_peers_also_when_checkpointed(pair: tuple[TimmTower, Any]) -> None:
    ours, theirs = pair
    image = pictures(ours)
    gradients = []
    for model, checkpointing in ((theirs, False), (ours, False), (ours, True)):
        model.set_grad_checkpointing(checkpointing)
        model.zero_grad()
        model(image).square().mean().backward()
        gradients.append({name: one.grad for name, one in model.named_parameters()})
    ours.set_grad_checkpointing(False)
    for found in gradients[1:]:
        torch.testing.assert_close(found, gradients[0], rtol=1e-4, atol=TOLERANCE)


@pytest.mark.parametrize("unlocked", range(4))
def test_locking_leaves_the_peers_groups_of_the_backbone_trainable(pair: tuple[TimmTower, Any], unlocked: int) -> None:
    """The peer never locks what stands behind the backbone; here it is the last group."""
    ours, theirs = pair
    behind = 1 if list(ours.head.parameters()) else 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the peer takes its groups from timm's old module
            theirs.lock(unlocked_groups=unlocked)
        ours.lock(unlocked + behind)
        expected = {name: one.requires_grad for name, one in theirs.named_parameters()}
        assert {name: one.requires_grad for name, one in ours.named_parameters()} == expected
        ours.lock()
        assert not any(one.requires_grad for one in ours.parameters())
    finally:
        ours.requires_grad_(True)
        theirs.requires_grad_(True)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("convnext-base", ["vision.name=test_convnext", "vision.image_size=64"]),
        ("eva02-b16", ["vision.name=toy_eva02", "vision.image_size=64"]),
        ("pe-core-b16", ["vision.name=toy_pe", "vision.image_size=64"]),
    ],
)
def test_a_whole_model_gives_the_peers_features(name: str, overrides: list[str]) -> None:
    small = {"width": 32, "heads": 2, "layers": 2, "vocab_size": 600}
    changes = [f"text.{key}={value}" for key, value in small.items()]
    ours: Any = zoo.build(name, overrides=[*overrides, *changes, "tokenizer.vocab_size=600", f"embed_dim={EMBED}"])
    config = peer_json(name)
    kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    config["embed_dim"] = EMBED
    config["vision_cfg"] |= {"timm_model_name": ours.config.vision.name, "image_size": 64}
    config["text_cfg"] |= small
    theirs = randomized(kind(**config)).eval()
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    image, text = images(ours), captions(ours)
    with torch.inference_mode():
        same(ours(image, text), theirs(image, text))


# Beside timm


@torch.inference_mode()
def test_timms_own_weights_give_timms_own_features() -> None:
    theirs = randomized(timm.create_model("test_vit", num_classes=EMBED)).eval()
    ours = tower({"name": "test_vit", "image_size": 160, "proj": "head"})
    ours.trunk.load_state_dict(theirs.state_dict())
    same(ours(pictures(ours)), theirs(pictures(ours)))


@torch.inference_mode()
def test_the_projection_takes_what_the_backbone_gives() -> None:
    """The peer's takes `num_features`, which some pools double and the heads of some backbones change."""
    for values in (
        {"name": "test_resnet", "pool": "catavgmax"},
        {"name": "mobilenetv3_small_050"},
        {"name": "test_mambaout"},
    ):
        ours = tower({"image_size": 64, **values})
        assert ours(pictures(ours)).shape == (2, EMBED)
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            peer({"image_size": 64, **values})(pictures(ours))


def test_a_vision_transformer_is_built_for_the_image_size() -> None:
    ours = tower({"name": "test_vit", "image_size": [32, 64]})
    assert ours.trunk.pos_embed.shape[1] == 1 + 2 * 4
    assert ours(pictures(ours)).shape == (2, EMBED)


@torch.inference_mode()
def test_a_convolutional_backbone_gives_its_maps_as_tokens_and_has_no_prefix() -> None:
    for name in ("test_convnext", "test_mambaout"):  # [B, C, h, w] and [B, h, w, C] inside
        ours = tower({"name": name, "image_size": [64, 96]})
        image = pictures(ours)
        maps = ours.forward_intermediates(image, output_extra_tokens=True)
        tokens = ours.forward_intermediates(image, output_extra_tokens=True, output_fmt="NLC")
        assert "image_intermediates_prefix" not in maps | tokens
        for one, flat in zip(maps["image_intermediates"], tokens["image_intermediates"], strict=True):
            assert one.shape[2] < one.shape[3]
            assert torch.equal(flat, one.flatten(2).mT)
        features, last = ours.forward_tokens(image)
        same(features, ours(image))
        assert last.shape[:2] == tokens["image_intermediates"][-1].shape[:2]


@torch.inference_mode()
def test_stopping_early_never_changes_a_feature() -> None:
    ours = tower(TOWERS["convnext"])
    image = pictures(ours)
    found = ours.forward_intermediates(image, indices=[0], stop_early=True)
    same(found["image_features"], ours(image))


def test_no_images_give_no_features() -> None:
    ours = tower(TOWERS["vit"])
    assert ours(torch.empty(0, 3, 160, 160)).shape == (0, EMBED)


def test_no_weight_decay_names_parameters_of_the_backbone() -> None:
    assert tower(TOWERS["vit"]).no_weight_decay() == {"trunk.pos_embed", "trunk.cls_token"}
    assert tower(TOWERS["resnet"]).no_weight_decay() == set()


def test_the_size_that_a_backbone_was_made_for_is_taken_even_where_patches_do_not_divide_it() -> None:
    assert on_meta("vit_so400m_patch14_siglip_384", 384).trunk.pos_embed.shape[1] == 27 * 27


# Training


def test_options_of_training_reach_the_backbone_and_the_head() -> None:
    ours = tower({"name": "test_vit", "image_size": 64, "drop_path": 0.5, "patch_dropout": 0.25, "drop": 0.125})
    assert ours.trunk.blocks[-1].drop_path1.drop_prob == 0.5
    assert ours.trunk.patch_drop.prob == 0.25
    assert ours.head.drop.p == 0.125
    assert tower({"name": "test_vit", "image_size": 64, "proj": "mlp", "drop": 0.5}).head.mlp.drop1.p == 0.5
    kept = tower({"name": "test_vit", "image_size": 64, "kwargs": {"depth": 2, "proj_drop_rate": 0.5}}).trunk
    assert (len(kept.blocks), kept.blocks[0].mlp.drop1.p) == (2, 0.5)


def test_patches_are_dropped_in_training_alone_and_intermediates_then_refused() -> None:
    ours = tower({"name": "test_vit", "image_size": 64, "patch_dropout": 0.5, "drop_path": 0.0})
    image = pictures(ours)
    assert torch.equal(ours(image), ours(image))
    ours.train()
    assert not torch.equal(ours(image), ours(image))
    with pytest.raises(InputError, match="intermediates need every patch"):
        ours.forward_intermediates(image)


def test_statistics_of_locked_batch_norms_stay_and_those_of_unlocked_groups_move() -> None:
    ours = tower({"name": "test_resnet", "image_size": 64})
    ours.lock(2, freeze_bn_stats=True)  # the projection and the last group of the backbone
    ours.train()
    before = {name: buffer.clone() for name, buffer in ours.named_buffers() if name.endswith("running_mean")}
    ours(pictures(ours, 4))
    moved = {name for name, buffer in ours.named_buffers() if name in before and not torch.equal(buffer, before[name])}
    trainable = {
        f"{name}.running_mean"
        for name, module in ours.named_modules()
        if isinstance(module, _BatchNorm) and module.weight.requires_grad
    }
    assert moved == trainable
    assert set() < moved < set(before)


# What one backbone cannot


def on_meta(name: str, size: int) -> TimmTower:
    with torch.device("meta"):
        return tower({"name": name, "image_size": size, "proj_bias": True})


def test_what_a_backbone_cannot_is_refused_by_its_name() -> None:
    pit, coat = on_meta("pit_ti_224", 224), on_meta("coat_lite_tiny", 224)
    with pytest.raises(CapabilityError, match="timm backbone 'pit_ti_224' has no layer groups: it can only be locked"):
        pit.lock(1)
    pit.lock()
    assert not any(one.requires_grad for one in pit.parameters())
    with pytest.raises(CapabilityError, match="timm backbone 'coat_lite_tiny' has no gradient checkpointing"):
        coat.set_grad_checkpointing()
    coat.set_grad_checkpointing(False)
    image = torch.empty(1, 3, 224, 224, device="meta")
    with pytest.raises(CapabilityError, match="timm backbone 'convit_tiny' gives its intermediates without its prefix"):
        on_meta("convit_tiny", 224).forward_intermediates(image, output_extra_tokens=True)
    with pytest.raises(CapabilityError, match="timm backbone 'crossvit_9_240' ends in several maps"):
        on_meta("crossvit_9_240", 240).forward_tokens(torch.empty(1, 3, 240, 240, device="meta"))


# What is refused


BAD_CONFIGS = {
    "no name": ({"name": None}, "name: expected a string, found None"),
    "empty name": ({"name": ""}, "name: String should have at least 1 character"),
    "tag": (
        {"name": "convnext_base.clip_laion2b"},
        "name: '.clip_laion2b' names weights, which an architecture does not load; write 'convnext_base'",
    ),
    "hub": ({"name": "hf-hub:timm/x"}, "name: 'hf-hub:timm/x' names a place to load from"),
    "pool": ({"pool": "average"}, "pool: 'average' is not known"),
    "no pool": ({"pool": ""}, "pool: '' is not known"),
    "proj": ({"proj": "linaer"}, "proj: 'linaer' is not known, did you mean 'linear'?"),
    "drop": ({"drop": 1.0}, "drop: must be less than 1, found 1.0"),
    "drop for nothing": ({"proj": "head", "drop": 0.1}, "drop: does nothing with proj 'head'; leave it out"),
    "bias for nothing": ({"proj": "none", "proj_bias": True}, "proj_bias: does nothing with proj 'none'"),
    "two projections": (
        {"pool": "abs_attn", "proj": "head"},
        "proj: pool 'abs_attn' leaves no classifier to project with; allowed: linear, mlp, none",
    ),
    "image size twice": ({"kwargs": {"img_size": 64}}, "kwargs.img_size: is written as 'image_size', beside kwargs"),
    "weights": ({"kwargs": {"pretrained": True}}, "kwargs.pretrained: cannot be set: an architecture loads no weights"),
    "channels": ({"kwargs": {"in_chans": 1}}, "kwargs.in_chans: cannot be set: a tower takes images of 3 channels"),
    "object": ({"kwargs": {"depth": {"a": 1}}}, "kwargs.depth"),
    "open_clip's name": ({"timm_model_name": "resnet18"}, "timm_model_name: unknown key, did you mean 'name'?"),
    "unknown key": ({"poool": "avg"}, "poool: unknown key, did you mean 'pool'?"),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_a_bad_config_is_refused_before_timm_is_asked(case: str) -> None:
    values, message = BAD_CONFIGS[case]
    with pytest.raises(ConfigError) as caught:
        TimmConfig.parse({"name": "test_vit", **values})
    assert message in str(caught.value)


BAD_TOWERS = {
    "unknown": ({"name": "convnext_bsae"}, "vision.name: timm {} has no backbone 'convnext_bsae', did you mean 'convnext_base'?"),
    "nothing like it": ({"name": "zzzzzzzzzzzz"}, "vision.name: timm {} has no backbone 'zzzzzzzzzzzz'; allowed: "),
    "unknown option": (
        {"name": "test_vit", "kwargs": {"deppth": 2}},
        "vision.kwargs.deppth: backbone 'test_vit' of timm {} takes no 'deppth'",
    ),
    "option of others": (
        {"name": "test_convnext", "patch_dropout": 0.5},
        "vision.patch_dropout: backbone 'test_convnext' of timm {} takes no 'patch_drop_rate'",
    ),
    "depth of others": (
        {"name": "vgg11", "drop_path": 0.5},
        "vision.drop_path: backbone 'vgg11' of timm {} takes no 'drop_path_rate'",
    ),
    "value": ({"name": "test_vit", "kwargs": {"num_heads": 5}}, "vision.kwargs: timm {} cannot build 'test_vit': "),
    "pool of others": ({"name": "test_resnet", "pool": "map"}, "vision.pool: "),
    "pool that a transformer lacks": ({"name": "test_vit", "pool": "map"}, "vision.pool: timm {} cannot build 'test_vit': "),
    "attention over tokens": (
        {"name": "test_vit", "pool": "abs_attn"},
        "vision.pool: 'abs_attn' attends over a map [C, h, w], but backbone 'test_vit' gives [17, 64]",
    ),
    "channels last": (
        {"name": "toy_swin", "image_size": 56, "pool": "rot_attn"},
        "vision.pool: 'rot_attn' attends over a map [C, h, w], but backbone 'toy_swin' gives [7, 7, 32]",
    ),
    "head width": (
        {"name": "test_resnet", "pool": "rot_attn"},
        "vision.pool: 'rot_attn' has heads of 64 channels, but 'test_resnet' gives 96",
    ),
    "width": (
        {"name": "test_vit", "proj": "none"},
        "vision.proj: with 'none' the feature of backbone 'test_vit' is 64 wide, but embed_dim is 24; "
        "write proj: linear, or embed_dim: 64",
    ),
    "no feature": (
        {"name": "toy_unpooled"},
        "vision.pool: backbone 'toy_unpooled' gives [17, 64] for an image, not one feature; set one",
    ),
    "patches": (
        {"name": "test_vit", "image_size": [64, 72]},
        "vision.image_size: backbone 'test_vit' has patches of 16 x 16 pixels, which do not divide images of 64 x 72",
    ),
    "too small": (
        {"name": "inception_v3", "image_size": 16},
        "vision.image_size: backbone 'inception_v3' takes no images of 16 x 16 pixels: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_TOWERS)
def test_what_a_backbone_does_not_take_is_refused_when_it_is_built(case: str) -> None:
    values, message = BAD_TOWERS[case]
    with torch.device("meta"), pytest.raises(ConfigError) as caught:
        tower({"image_size": 64, **values})
    assert str(caught.value).startswith(message.format(timm.__version__))
    assert "\n" not in str(caught.value)


def test_no_block_at_all_may_be_asked_for() -> None:
    ours = tower({"name": "test_convnext", "image_size": 64})
    image = pictures(ours)
    output = ours.forward_intermediates(image, indices=[])
    assert output["image_intermediates"] == []
    same(output["image_features"], ours(image))


def test_a_number_of_a_block_that_is_not_there_is_refused() -> None:
    ours = tower({"name": "test_convnext", "image_size": 64})
    for indices in (5, 0, [4], [-5]):
        with pytest.raises(InputError, match="indices"):
            ours.forward_intermediates(pictures(ours), indices=indices)


# Size and laziness


def over_timm(**vision: Any) -> dict[str, Any]:
    return TINY | {"vision": {"tower": "timm", "image_size": 32, **vision}}


def test_a_model_that_is_too_large_is_refused_before_it_is_allocated(tmp_path: Path) -> None:
    huge = over_timm(name="test_vit", kwargs={"embed_dim": 65_536, "depth": 8, "num_heads": 2})
    with pytest.raises(ConfigError, match=r"max_parameters: the model would have 3\d\d,\d{3},\d{3},\d{3} parameters"):
        zoo.build(huge)
    config = zoo.config(over_timm(name="test_vit"))
    assert config.parameter_count() is None
    weights = zoo.save(zoo.build(config), tmp_path / "model") / "model.safetensors"
    small = config.model_copy(update={"max_parameters": 1000})
    with pytest.raises(ConfigError, match="max_parameters"):
        assemble(small, weights=weights)


@torch.inference_mode()
def test_a_saved_model_comes_back_with_the_buffers_that_no_file_holds(tmp_path: Path) -> None:
    model: Any = zoo.build(over_timm(name="eva02_tiny_patch14_224", image_size=28, kwargs={"depth": 1}))
    again: Any = zoo.build(zoo.save(model, tmp_path / "model"))
    assert not any(one.is_meta for one in again.buffers())
    assert torch.equal(again.encode_image(images(model)), model.encode_image(images(model)))


LAZY = """
import sys
import zoo
from zoo.building.describe import describe_model
from zoo.catalog.listing import list_architectures
assert len(list_architectures("convnext*")) == 11
assert describe_model("vitamin-l-256")["parameters"] is None
heavy = {"torch", "torchvision", "timm", "transformers"} & set(sys.modules)
assert not heavy, heavy
from support.models.tiny_configs import TINY
zoo.build(TINY)
zoo.build(TINY | {"vision": {"tower": "timm", "name": "test_vit"}}, towers=("text",))
heavy = {"torchvision", "timm"} & set(sys.modules)
assert not heavy, heavy
"""


def test_timm_is_not_imported_before_a_timm_tower_is_built() -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", LAZY], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_casts_norms_that_take_one_dtype_alone(dtype: torch.dtype) -> None:
    text = {"context_length": 8, "vocab_size": 50, "width": 16, "layers": 1, "heads": 2}
    vision = {"tower": "timm", "name": "test_vit", "image_size": 32, "kwargs": {"depth": 2}}
    model = zoo.CLIP(16, vision, text, cast_dtype=dtype).eval()
    assert model.encode_image(torch.zeros(2, 3, 32, 32)).dtype == dtype
    assert model.ln_final.weight.dtype == torch.float32
