"""The test kit: zoo's own towers keep every promise, and a tower that breaks one is told which."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from support.models import broken_towers
from support.models.declared_towers import stranger
from zoo_core.registry import Component, Plugin, Registry, default_registry
from zoo_core.testing import BrokenPromiseError, check_component, check_config, check_plugin

SMALL = {
    "vit": [
        {"image_size": [16, 24], "patch_size": 8, "width": 16, "layers": 3, "head_width": 8},
        {"image_size": 16, "patch_size": 8, "width": 16, "layers": 2, "head_width": 16, "ls_init_value": 0.1},
        {"image_size": 32, "patch_size": 8, "width": 16, "layers": 2, "head_width": 16, "patch_dropout": 0.5},
    ],
    "modified-resnet": [
        {"image_size": [32, 64], "layers": [2, 1, 1, 1], "width": 4, "head_width": 16},
        {"image_size": 64, "layers": [1, 1, 2, 1], "width": 2, "head_width": 64},
    ],
    "clip-transformer": [
        {"context_length": 8, "vocab_size": 50, "width": 16, "layers": 3, "heads": 2},
        {
            "context_length": 5,
            "vocab_size": 3,
            "width": 8,
            "layers": 2,
            "heads": 1,
            "activation": "quick_gelu",
        },
    ],
    "modern-transformer": [
        {"context_length": 8, "vocab_size": 50, "width": 16, "layers": 3, "heads": 2, "eos_id": 49, "pad_id": 0},
        {
            "context_length": 6,
            "vocab_size": 9,
            "width": 16,
            "layers": 2,
            "heads": 2,
            "causal": False,
            "pool_type": "map",
            "pad_id": 0,
            "reg_tokens": 2,
            "value_residual": True,
            "attn_gated": True,
        },
    ],
    "timm": [
        {"name": "test_vit", "image_size": [48, 32], "kwargs": {"depth": 2}},
        {"name": "test_convnext", "image_size": 64, "proj": "mlp"},
        {"name": "test_resnet", "image_size": 64, "proj": "head"},
    ],
    "naflex": [
        {
            "name": "naflexvit_base_patch16_siglip",
            "image_size": [16, 24],
            "patch_size": 8,
            "pool": "map",
            "kwargs": {"embed_dim": 32, "depth": 2, "num_heads": 2, "pos_embed_grid_size": [3, 3]},
        },
        {
            "name": "naflexvit_base_patch16_gap",
            "image_size": [24, 16],
            "patch_size": 8,
            "proj": "mlp",
            "kwargs": {"embed_dim": 32, "depth": 2, "num_heads": 2, "rope_type": "axial"},
        },
    ],
    "hf-text": [
        {
            "vocab_size": 60,
            "context_length": 8,
            "config": {
                "model_type": "roberta",
                "hidden_size": 16,
                "num_hidden_layers": 3,
                "num_attention_heads": 2,
                "intermediate_size": 24,
                "max_position_embeddings": 20,
            },
        },
    ],
}
"""Tiny configs of the towers that come with zoo."""

TOWERS = [one for one in default_registry().components() if one.spec.kind.endswith("-tower")]
OTHERS = [one for one in default_registry().components() if one not in TOWERS and one.spec.kind != "model"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def own(components: list[Component]) -> list[Component]:
    return [one for one in components if one.plugin.belongs_to("clip-zoo")]


def test_every_tower_of_zoo_has_a_tiny_config_here() -> None:
    assert {one.spec.name for one in own(TOWERS)} == set(SMALL)


@pytest.mark.parametrize(
    ("tower", "values"),
    [pytest.param(one, values, id=one.spec.name) for one in own(TOWERS) for values in SMALL[one.spec.name]],
)
def test_every_tower_of_zoo_keeps_every_promise(tower: Component, values: dict[str, object]) -> None:
    check_component(tower, values)


@pytest.mark.parametrize("component", own(OTHERS), ids=lambda one: f"{one.spec.kind} {one.spec.name}")
def test_every_other_part_of_zoo_has_a_config_that_is_plain_data(component: Component) -> None:
    pairs = {"type": "folder", "path": "pairs"}
    required: dict[str, dict[str, object]] = {
        "tokenizer hf": {"name": "a", "vocab_size": 9},
        "loss coca": {"pad_id": 0},
        "optimizer timm": {"name": "adopt"},
        "evaluator retrieval": {"dataset": pairs},
        "evaluator zero-shot": {"dataset": pairs},
    }
    name = f"{component.spec.kind} {component.spec.name}"
    values = {"path": "data"} if component.spec.kind == "dataset" else required.get(name, {})
    assert check_config(component, values).component == component.spec.name


def test_the_plugins_of_zoo_are_light_and_their_architectures_valid() -> None:
    assert {one.spec.name for one in check_plugin("clip_zoo")} >= {*SMALL, "clip", "custom-text-clip"}


def test_a_tower_that_claims_nothing_and_keeps_its_promises_passes() -> None:
    check_component(stranger(), {"image_size": 8})


def test_a_tower_that_takes_patches_and_keeps_its_promises_passes() -> None:
    component = stranger(broken_towers.Patched, broken_towers.PatchedConfig, frozenset({"image-patches"}))
    check_component(component, {"image_size": [8, 12]})


def test_a_config_object_is_taken_as_it_is() -> None:
    check_component(stranger(), broken_towers.PlainConfig())


EVERYTHING = frozenset({"tokens", "intermediates", "locking", "gradient-checkpointing", "variable-image-size"})


def test_a_tower_that_claims_everything_and_keeps_it_passes() -> None:
    check_component(stranger(broken_towers.Capable, capabilities=EVERYTHING), {"image_size": [8, 10]})


@pytest.mark.parametrize("capability", sorted(EVERYTHING))
def test_what_a_tower_offers_it_must_claim(capability: str) -> None:
    component = stranger(broken_towers.Capable, capabilities=EVERYTHING - {capability})
    with pytest.raises(BrokenPromiseError, match=f"does not claim '{capability}', but"):
        check_component(component, {"image_size": 8})


BROKEN = {
    "config base": (
        stranger(config=broken_towers.OfNoKind),
        "must derive from zoo_core.config.VisionTowerConfig",
    ),
    "selector": (
        stranger(config=broken_towers.Misnamed),
        "'tower' of Misnamed must default to 'plain', found 'other'",
    ),
    "round trip": (stranger(config=broken_towers.Forgetful), "its config does not come back from data()"),
    "plain data": (stranger(config=broken_towers.Unplain), "data() of its config is not plain data"),
    "count": (
        stranger(config=broken_towers.Counting),
        "parameter_count() tells 3, but the tower has 112 parameters",
    ),
    "interface": (stranger(broken_towers.NoTower), "its factory must return a VisionTower, found NoTower"),
    "width": (stranger(broken_towers.Narrow), "output_dim of the tower must be 16, found 17"),
    "image size": (stranger(broken_towers.Resized), "image_size of the tower must be (8, 8), found (3, 3)"),
    "meta": (
        stranger(broken_towers.Eager),
        "parameter 'proj.weight' takes memory when built under torch.device('meta')",
    ),
    "memory": (stranger(broken_towers.Uninitialised), "'proj.weight' is left uninitialised, or NaN"),
    "seed": (stranger(broken_towers.Unseeded), "'noise' differs between two builds from one seed"),
    "settings": (
        stranger(broken_towers.Meddling),
        "building it changes the float32 matmul precision from highest to medium",
    ),
    "shape": (
        stranger(broken_towers.Flat),
        "forward of 0 rows must return floating-point features [0, 16], found torch.float32 [0]",
    ),
    "finite": (stranger(broken_towers.Infinite), "forward of 1 rows returns values that are not finite"),
    "in place": (stranger(broken_towers.InPlace), "forward changes its input in place"),
    "evaluation": (stranger(broken_towers.Dropping), "gives another result the second time"),
    "rows": (stranger(broken_towers.Mixing), "the feature of a row depends on the other rows of the batch"),
    "half": (stranger(broken_towers.SinglePrecision), "its features in bfloat16 come as torch.float32"),
    "half matrices": (stranger(broken_towers.Mismatched), "it cannot run in bfloat16: "),
    "state": (stranger(broken_towers.Tied), "its state dict cannot be saved and loaded: "),
    "buffers": (
        stranger(broken_towers.HiddenState),
        "a tower that loads its state dict gives other features",
    ),
    "copies": (stranger(broken_towers.ForgottenBySetstate), "its deep copy gives other features"),
    "unclaimed": (stranger(broken_towers.GivesTokens), "does not claim 'tokens', but offers it"),
    "refusal": (
        stranger(broken_towers.WrongRefusal),
        "must refuse 'tokens' with a CapabilityError, found NotImplementedError",
    ),
    "gradients": (stranger(broken_towers.Diverging), "gradients that are not finite"),
    "decay": (
        stranger(broken_towers.Undecayed),
        "no_weight_decay() names ['positions'], which are no parameters",
    ),
    "patches untold": (
        stranger(broken_towers.Patched),
        "takes_patches() tells None, but image_patches of the tower is (4, 4)",
    ),
    "patches": (
        stranger(broken_towers.Patched, broken_towers.PatchedConfig),
        "does not claim 'image-patches', but image_patches of the tower is (4, 4)",
    ),
    "patches apart": (
        stranger(broken_towers.PatchesApart, broken_towers.PatchedConfig, frozenset({"image-patches"})),
        "an image and its patches have different features",
    ),
    "padding": (
        stranger(broken_towers.PaddingCounts, broken_towers.PatchedConfig, frozenset({"image-patches"})),
        "padding changes the features of patches",
    ),
    "attribute": (
        stranger(broken_towers.SaysVariable),
        "does not claim 'variable-image-size', but variable_image_size of the tower is True",
    ),
}
"""Component -> the sentence that tells what is broken."""

UNKEPT = {
    "tokens": (broken_towers.Plain, "claims 'tokens', but: Plain does not claim 'tokens'"),
    "other features": (
        broken_towers.OtherFeatures,
        "the features of forward_tokens are not those of forward",
    ),
    "shape of tokens": (
        broken_towers.FlatTokens,
        "the tokens of forward_tokens must be [2, N, width], found [2, 192]",
    ),
    "other pooling": (
        broken_towers.OtherPooling,
        "the features of forward_intermediates are not those of forward",
    ),
    "always features": (
        broken_towers.AlwaysFeatures,
        "forward_intermediates returns features despite intermediates_only",
    ),
    "all blocks": (
        broken_towers.AllBlocks,
        "forward_intermediates(indices=1) must return the last block's output alone",
    ),
    "any format": (broken_towers.AnyFormat, "must refuse {'output_fmt': 'nonsense'} with an InputError"),
    "other gradients": (broken_towers.WrongBackward, "gradient checkpointing changes the gradients"),
    "one size": (broken_towers.OneSize, "forward of 16 x 8 pixels must return"),
    "intermediates": (
        broken_towers.FeaturesOnly,
        "forward_intermediates must return 'image_intermediates', found ['image_features']",
    ),
    "locking": (broken_towers.Plain, "claims 'locking', but: Plain does not claim 'locking'"),
    "more groups": (
        broken_towers.TwiceGrouped,
        "each layer group must unlock more parameters than the last, found [16, 16]",
    ),
    "all groups": (broken_towers.HalfGrouped, "its layer groups leave some parameters out"),
    "gradient-checkpointing": (
        broken_towers.SilentCheckpointing,
        "gradient checkpointing keeps as many activations as without",
    ),
    "variable-image-size": (
        broken_towers.Plain,
        "claims 'variable-image-size', but variable_image_size of the tower is False",
    ),
    "image-patches": (
        broken_towers.Plain,
        "claims 'image-patches', but image_patches of the tower is None",
    ),
    "variable-text-length": (
        broken_towers.Plain,
        "claims 'variable-text-length', which only a text-tower can",
    ),
}
"""Capability (or a word for it) -> tower that claims it, and the sentence."""
CLAIMS = {"other features": {"tokens"}, "more groups": {"locking"}, "all groups": {"locking"}}


@pytest.mark.parametrize(("component", "sentence"), BROKEN.values(), ids=BROKEN)
def test_a_broken_promise_is_named(component: Component, sentence: str) -> None:
    precision = torch.get_float32_matmul_precision()
    try:
        with pytest.raises(BrokenPromiseError) as raised:
            check_component(component, {"image_size": 8})
    finally:
        torch.set_float32_matmul_precision(precision)
    assert sentence in str(raised.value)
    assert "vision-tower 'plain' of acme 1.0" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("word", UNKEPT)
def test_a_claim_that_is_not_kept_is_named(word: str) -> None:
    tower, sentence = UNKEPT[word]
    claimed = EVERYTHING if issubclass(tower, broken_towers.Capable) else frozenset(CLAIMS.get(word, {word}))
    component = stranger(tower, capabilities=claimed)
    with pytest.raises(AssertionError) as raised:
        check_component(component, {"image_size": 8})
    assert sentence in str(raised.value)


def test_the_check_leaves_no_trace_in_the_process() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    check_component(stranger(), {"image_size": 8})
    assert torch.equal(torch.rand(1), expected)
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_plugin_whose_light_module_imports_a_heavy_package_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "timm.py").touch()
    (tmp_path / "acme_heavy.py").write_text("import timm\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry([Plugin("towers", "acme_heavy", "acme", "1.0")])
    with pytest.raises(BrokenPromiseError, match=r"plugin towers \(acme 1.0\): acme_heavy imports timm"):
        check_plugin("acme", registry)


def test_a_quarantined_plugin_is_told_with_its_reason() -> None:
    registry = Registry([Plugin("towers", "acme", "acme", "1.0", error="RuntimeError: no licence")])
    with pytest.raises(BrokenPromiseError, match="is quarantined: RuntimeError: no licence"):
        check_plugin("Acme", registry)


def test_a_distribution_without_plugins_is_told() -> None:
    with pytest.raises(BrokenPromiseError, match="acme declares no plugin; it needs an entry point"):
        check_plugin("acme", Registry([]))


def test_an_architecture_that_is_wrong_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "acme_yaml"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "acme-net.yaml").write_text("model: clop\n")
    monkeypatch.syspath_prepend(tmp_path)
    plugin = Plugin("towers", "acme_yaml", "acme", "1.0", architectures="acme_yaml")
    registry = Registry([*default_registry().plugins, plugin])
    with pytest.raises(BrokenPromiseError, match=r"architecture 'acme-net' of towers .*: model: unknown model 'clop'"):
        check_plugin("acme", registry)
