"""Pretrained entries: those of open_clip, and how their weights are had from the Hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import open_clip
import pytest
import torch
from open_clip.pretrained import _PRETRAINED
from safetensors.torch import save_file

import zoo
from hf_hub_server import serve
from zoo.catalog import architectures
from zoo.pretrained_entries import HubWeights, Pretrained, entries_of
from zoo_core.errors import CheckpointError

MOVED = {("ViT-B-16-plus-240", "laion400m_e32"): "timm/vit_base_patch16_plus_clip_240.laion400m_e32"}
"""Repositories that are not the peer's: it names those of other weights."""


def quick_gelu_twin(model: str) -> str:
    """Return the name of the peer's architecture with QuickGELU, if it has one beside `model`."""
    return next((name for name in (f"{model}-quickgelu", model) if name in _PRETRAINED), model)


def pairs() -> list[tuple[str, str]]:
    """Return the peer's architectures and tags; what needs QuickGELU counts for the architecture that has it."""
    found: dict[tuple[str, str], None] = {}
    for model, tags in _PRETRAINED.items():
        for tag, config in tags.items():
            found[(quick_gelu_twin(model) if config.get("quick_gelu") else model, tag)] = None
    return list(found)


@pytest.mark.parametrize(("model", "tag"), pairs())
def test_the_peers_weights_are_here_with_their_preprocessing_and_activation(model: str, tag: str) -> None:
    theirs: Any = _PRETRAINED[model][tag]
    entry = entries_of(model)[tag]
    assert entry.hub is not None
    repo, file = entry.hub.repo, entry.hub.file or ""
    assert f"{repo}/{file}" == theirs["hf_hub"].replace(
        theirs["hf_hub"].rpartition("/")[0], MOVED.get((model, tag), repo)
    )
    if (model, tag) not in MOVED:
        assert theirs["hf_hub"].rpartition("/")[0] == repo
    preprocess: Any = zoo.config(model, overrides=entry.overrides()).preprocess
    for key in ("mean", "std"):
        assert tuple(getattr(preprocess, key)) == tuple(theirs[key]), key
    for key in ("interpolation", "resize_mode"):
        assert getattr(preprocess, key) == theirs[key], key
    config: Any = zoo.config(model)
    for tower in (config.vision, config.text):
        if "activation" in type(tower).model_fields:
            assert tower.activation == entry.activation
    if theirs.get("quick_gelu") and entry.activation is not None:
        assert entry.activation == "quick_gelu"


def test_no_other_entries_are_here_but_the_demos() -> None:
    offered = {(name, tag) for name, tags in zoo.list_pretrained().items() for tag in tags}
    theirs = {(architectures().find(model).name, tag) for model, tag in pairs()}
    assert offered - theirs == {("digits-tiny", "demo")}
    assert len(theirs) == 169
    assert set(open_clip.list_models()) >= set(_PRETRAINED)


# The Hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve the folder of one repository, with weights that show where they come from, as a tag of digits-tiny."""
    folder = tmp_path / "served"
    folder.mkdir()
    torch.manual_seed(5)
    save_file(zoo.build("digits-tiny").state_dict(), folder / "open_clip_model.safetensors")
    with serve({"acme/digits": {"main": folder, "v1": folder}}) as address:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(
            huggingface_hub.constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        yield folder


def tagged(monkeypatch: pytest.MonkeyPatch, **entry: Any) -> None:
    found = Pretrained.parse({"hub": {"repo": "acme/digits"}, **entry})
    monkeypatch.setattr("zoo.weights.entries_of", lambda _: {"theirs": found})


def test_weights_come_from_the_hub_with_the_preprocessing_of_their_training(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tagged(monkeypatch, activation="gelu", preprocess={"mean": [0.1, 0.2, 0.3], "interpolation": "bilinear"})
    model: Any = zoo.build("digits-tiny", pretrained="theirs")
    torch.manual_seed(5)
    assert torch.equal(model.visual.proj, zoo.build("digits-tiny").state_dict()["visual.proj"])
    assert (list(model.preprocess.config.mean), model.config.preprocess.interpolation) == ([0.1, 0.2, 0.3], "bilinear")
    (hub / "open_clip_model.safetensors").unlink()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert torch.equal(zoo.build("digits-tiny", pretrained="theirs").state_dict()["visual.proj"], model.visual.proj)


def pickled(hub: Path) -> None:
    (hub / "open_clip_model.safetensors").rename(hub / "open_clip_pytorch_model.bin")


@pytest.mark.parametrize(
    ("entry", "change", "message"),
    [
        ({"hub": {"repo": "acme/gone"}}, None, "acme/gone: the Hub shows no such repository"),
        ({"hub": {"repo": "acme/digits", "revision": "v2"}}, None, "acme/digits at revision 'v2': .* no such revision"),
        ({}, pickled, "acme/digits: the repository holds none of open_clip_model.safetensors, .* reads no pickles"),
        ({"sha256": "0" * 64}, None, "is damaged: expected sha256 000"),
        ({"activation": "quick_gelu"}, None, "was trained with activation quick_gelu, but vision.activation is gelu"),
    ],
    ids=["no repository", "no revision", "no safetensors", "other bytes", "another activation"],
)
def test_what_cannot_be_had_from_the_hub_is_told(
    entry: dict[str, Any], change: Any, message: str, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if change is not None:
        change(hub)
    tagged(monkeypatch, **entry)
    with pytest.raises(CheckpointError, match=message):
        zoo.build("digits-tiny", pretrained="theirs")


def test_without_a_network_the_line_says_what_to_do(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        CheckpointError, match="HF_HUB_OFFLINE is set; run `hf download timm/resnet50_clip.openai open_"
    ):
        zoo.build("rn50-quickgelu", pretrained="openai")


def test_safetensors_are_looked_for_beside_the_pickle_that_an_entry_names(hub: Path) -> None:
    from zoo.downloads import fetch_weights

    (hub / "open_clip_model.safetensors").rename(hub / "weights.safetensors")
    source = HubWeights(repo="acme/digits", file="weights.bin")
    assert fetch_weights(source).name == "weights.safetensors"


def test_the_cache_is_looked_through_without_a_network(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.downloads import fetch_weights

    source = HubWeights(repo="acme/digits", file="weights.bin")
    assert fetch_weights(source).name == "open_clip_model.safetensors"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert fetch_weights(source).name == "open_clip_model.safetensors"
