"""Weights: the checkpoint in the wheel, tags, files, and what does not fit."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo
from support.models.tiny_configs import TINY, changed
from zoo.catalog.pretrained import Pretrained, entries_of
from zoo.demo.data import load_digits
from zoo.demo.evaluation import evaluate
from zoo.demo.settings import RECIPE
from zoo_core.errors import CheckpointError, ConfigError, InputError, UnknownNameError


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A safetensors file of the tiny architecture."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(zoo.build(TINY).state_dict(), path)
    return path


def test_the_checkpoint_in_the_wheel_names_held_out_digits_by_held_out_prompts() -> None:
    entry = entries_of("digits-tiny")["demo"]
    assert entry.recipe is not None
    assert entry.path.stat().st_size < 2_000_000
    split = load_digits(entry.recipe["seed"], RECIPE.test_share).test
    assert evaluate(zoo.build("digits-tiny", pretrained="demo"), split).accuracy >= 0.95


def test_the_recipe_of_the_checkpoint_is_the_demos() -> None:
    from zoo.demo import recipe

    recorded = entries_of("digits-tiny")["demo"].recipe
    assert recorded is not None
    assert recorded["command"] == f"zoo demo --seed {recorded['seed']}"
    expected = json.loads(json.dumps(recipe()))
    assert {key: recorded[key] for key in expected} == expected


def test_a_file_becomes_the_models_parameters(weights: Path) -> None:
    model = zoo.build(TINY, pretrained=weights)
    for name, value in load_file(weights).items():
        assert torch.equal(model.state_dict()[name], value)
    assert not any(parameter.is_meta for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_loading_draws_nothing_at_random(weights: Path) -> None:
    before = torch.random.get_rng_state()
    zoo.build(TINY, pretrained=str(weights))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("tower", "absent"), [("image", "text"), ("text", "visual")])
def test_one_tower_reads_its_own_weights_alone(tower: str, absent: str, weights: Path) -> None:
    whole, part = zoo.build(TINY, pretrained=weights), zoo.build(TINY, pretrained=weights, towers=(tower,))
    assert getattr(part, absent) is None
    assert sum(p.numel() for p in part.parameters()) < sum(p.numel() for p in whole.parameters())
    for name, value in part.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name])


def test_an_unknown_tag_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="has no pretrained tag 'dmeo', did you mean 'demo'"):
        zoo.build("digits-tiny", pretrained="dmeo")
    with pytest.raises(UnknownNameError, match="has no pretrained tag 'openai'; it has none"):
        zoo.build("vit-s32", pretrained="openai")
    with pytest.raises(UnknownNameError, match="has no pretrained tag 'openai'; 'vit-b32-quickgelu' has these weights"):
        zoo.build("ViT-B/32", pretrained="openai")


def test_weights_of_another_activation_are_refused() -> None:
    with pytest.raises(CheckpointError, match="was trained with activation gelu, but text.activation is quick_gelu"):
        zoo.build("digits-tiny", pretrained="demo", overrides=["text.activation=quick_gelu"])


def test_a_damaged_shipped_file_is_told_from_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = entries_of("digits-tiny")["demo"]
    content = bytearray(entry.path.read_bytes())
    content[-1] ^= 1
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(content)
    monkeypatch.setattr(
        "zoo.catalog.pretrained.entries_of", lambda _: {"demo": entry.model_copy(update={"path": damaged})}
    )
    with pytest.raises(CheckpointError, match="is damaged: expected sha256"):
        zoo.build("digits-tiny", pretrained="demo")


def test_weights_that_do_not_fit_are_refused_by_key(weights: Path, tmp_path: Path) -> None:
    tensors = load_file(weights)
    cases = {
        "1 missing in the text tower: ln_final.bias": {k: v for k, v in tensors.items() if k != "ln_final.bias"},
        "1 unexpected in the image tower: visual.extra": tensors | {"visual.extra": torch.zeros(1)},
        "visual.proj has shape [3, 3], expected [64, 32]": tensors | {"visual.proj": torch.zeros(3, 3)},
    }
    for message, changed_tensors in cases.items():
        path = tmp_path / "changed.safetensors"
        save_file(changed_tensors, path)
        with pytest.raises(CheckpointError) as caught:
            zoo.build(TINY, pretrained=path)
        assert message in str(caught.value)
        assert str(path) in str(caught.value)
    with pytest.raises(CheckpointError, match="does not fit the architecture"):
        zoo.build(changed(vision={"layers": 3}), pretrained=weights)


def test_a_truncated_file_is_refused(weights: Path, tmp_path: Path) -> None:
    content = weights.read_bytes()
    path = tmp_path / "cut.safetensors"
    for length in (4, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
            zoo.build(TINY, pretrained=path)


def test_a_missing_file_is_told() -> None:
    with pytest.raises(CheckpointError, match="gone.safetensors is no file"):
        zoo.build(TINY, pretrained="gone.safetensors")


def test_a_saved_folder_is_readable_by_others_and_brings_its_weights(tmp_path: Path) -> None:
    folder = zoo.save(zoo.build(TINY), tmp_path / "model")
    assert stat.S_IMODE(folder.stat().st_mode) & 0o500 == 0o500
    fresh = tmp_path / "fresh"
    fresh.touch()
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {stat.S_IMODE(fresh.stat().st_mode)}
    with pytest.raises(InputError, match="is a saved model with weights of its own"):
        zoo.build(folder, pretrained="demo")


def test_an_entry_is_checked_like_any_config() -> None:
    for places in ({}, {"path": Path("x"), "hub": {"repo": "a/b"}}):
        with pytest.raises(ConfigError, match="path: says where the weights are, or hub does: expected one of the two"):
            Pretrained.parse(places)
    with pytest.raises(ConfigError, match="hub.repo: "):
        Pretrained.parse({"hub": {"repo": "no owner"}})
    with pytest.raises(ConfigError, match="sha265: unknown key, did you mean 'sha256'"):
        Pretrained(path=Path("x"), description="y", sha265="0" * 64)
