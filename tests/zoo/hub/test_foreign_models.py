"""Repositories of other libraries on the Hub: the model that they state, the files that they need, and no others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch

import zoo
from support import peer
from support.checkpoints.foreign import assert_close, equal
from support.checkpoints.openclip_folders import open_clip_folder
from support.checkpoints.siglip2_folders import siglip2_folder
from support.checkpoints.transformers_folders import captions, images, pooled, saved, transformers_model
from support.hf_hub_server import Hub, used
from support.tokenizers.tiny_tokenizers import MAKERS
from zoo_core.errors import CheckpointError, ConfigError, DownloadError, InputError
from zoo_core.hub.lockfile import lock_file, pinned, pinned_listing

ADDRESS = "hf-hub:acme/theirs"


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with used(tmp_path, monkeypatch) as hub:
        yield hub


@pytest.fixture
def served(hub: Hub, tmp_path: Path) -> Path:
    """Return the folder that the repository is."""
    folder = tmp_path / "served"
    folder.mkdir()
    hub.repositories["acme/theirs"] = {"main": folder}
    return folder


def cached(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "cache").rglob("snapshots/*/*")}


# What is built


def test_a_repository_of_open_clip_is_its_model(served: Path, tmp_path: Path) -> None:
    theirs = open_clip_folder(served)
    (served / "picture.png").write_bytes(b"png")
    (served / "optimizer.pt").write_bytes(b"large")
    ours: Any = zoo.build(ADDRESS)
    assert equal(ours.state_dict(), theirs.state_dict())
    pixels, ids = peer.images(ours), peer.captions(ours)
    with torch.no_grad():
        assert_close(ours.encode_image(pixels), theirs.encode_image(pixels))
        assert_close(ours.encode_text(ids), theirs.encode_text(ids))
    assert list(ours.config.preprocess.data()["mean"]) == [0.1, 0.2, 0.3]
    assert ours.config.text.data()["activation"] == "quick_gelu"
    assert cached(tmp_path) == {"open_clip_config.json", "open_clip_pytorch_model.bin"}
    assert zoo.preprocess(ADDRESS).config == ours.preprocess.config


@pytest.mark.parametrize("shards", [False, True], ids=["one file", "shards"])
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_repository_of_transformers_is_its_model(kind: str, shards: bool, served: Path) -> None:
    theirs = transformers_model(kind)
    saved(theirs, served, kind, **({"max_shard_size": "20KB"} if shards else {}))
    assert shards is (served / "model.safetensors.index.json").exists()
    ours: Any = zoo.build(ADDRESS)
    with torch.no_grad():
        assert_close(ours.encode_image(images()), pooled(theirs.get_image_features(images())))
        assert_close(ours.encode_text(captions()), pooled(theirs.get_text_features(captions())))
    told = json.loads((served / "preprocessor_config.json").read_text())
    assert list(ours.config.preprocess.data()["mean"]) == told["image_mean"]


def test_a_repository_of_siglip2_is_its_model(served: Path) -> None:
    theirs = siglip2_folder(served)
    ours: Any = zoo.build(ADDRESS)
    with torch.no_grad():
        assert_close(ours.encode_text(captions()), pooled(theirs.get_text_features(captions())))
    assert equal(ours.state_dict(), zoo.build(served).state_dict())


def test_safetensors_are_taken_where_a_repository_holds_both(served: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    theirs = open_clip_folder(served)
    (served / "open_clip_pytorch_model.bin").write_bytes(b"unread")
    save_file(theirs.state_dict(), served / "open_clip_model.safetensors")
    zoo.build(ADDRESS)
    assert cached(tmp_path) == {"open_clip_config.json", "open_clip_model.safetensors"}


def test_the_tokenizer_is_the_one_of_the_repository_and_comes_along(
    served: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    MAKERS["wordpiece"](served)
    theirs = AutoTokenizer.from_pretrained(served)
    open_clip_folder(served, "acme/elsewhere", max(theirs.get_vocab().values()) + 1)
    model: Any = zoo.build(ADDRESS)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    expected = theirs(["a cat"])["input_ids"][0]
    for tokenizer in (model.tokenizer, zoo.tokenizer(ADDRESS), zoo.build(served).tokenizer):
        assert tokenizer is not None
        assert tokenizer("a cat")[0, : len(expected)].tolist() == expected
    folder = zoo.save(model, tmp_path / "model", probe=False)
    assert "acme/elsewhere" in (folder / "config.yaml").read_text()
    assert (folder / "tokenizer" / "tokenizer.json").read_bytes() == (served / "tokenizer.json").read_bytes()


def test_a_pulled_repository_is_a_folder_of_ours_that_says_where_it_is_from(
    hub: Hub, served: Path, tmp_path: Path
) -> None:
    theirs = open_clip_folder(served)
    folder = zoo.pull(ADDRESS, tmp_path / "pulled")
    assert equal(zoo.load(folder, verify=True, probe=True).state_dict(), theirs.state_dict())
    commit = hub.move("acme/theirs", served)
    assert json.loads((folder / "zoo.json").read_text())["source"] == {"repo": "acme/theirs", "commit": commit}
    assert f"It was made from `acme/theirs` at commit {commit}." in (folder / "README.md").read_text()


# What stays


def test_what_was_taken_is_in_the_lock_file_and_needs_no_hub(
    hub: Hub, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = open_clip_folder(served)
    zoo.build(ADDRESS)
    commit = hub.move("acme/theirs", served)
    listing = pinned_listing("acme/theirs")
    assert listing is not None
    assert (listing.commit, set(listing.files)) == (commit, {"open_clip_config.json", "open_clip_pytorch_model.bin"})
    assert {getattr(pinned("acme/theirs", name), "commit", None) for name in listing.files} == {commit}
    hub.requests.clear()
    assert equal(zoo.build(ADDRESS).state_dict(), theirs.state_dict())
    assert equal(zoo.build(ADDRESS, local_files_only=True).state_dict(), theirs.state_dict())
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert equal(zoo.build(ADDRESS).state_dict(), theirs.state_dict())
    assert hub.requests == []


def test_a_branch_that_moves_does_not_move_the_model(hub: Hub, served: Path, tmp_path: Path) -> None:
    first = open_clip_folder(served)
    zoo.build(ADDRESS)
    newer = tmp_path / "newer"
    shutil.copytree(served, newer)
    state = {key: one + 1 for key, one in first.state_dict().items()}
    torch.save(state, newer / "open_clip_pytorch_model.bin")
    moved = hub.move("acme/theirs", newer)
    shutil.rmtree(tmp_path / "cache")
    assert equal(zoo.build(ADDRESS).state_dict(), first.state_dict())
    assert equal(zoo.build(f"{ADDRESS}@{moved}").state_dict(), state)


def test_a_download_that_was_interrupted_is_not_taken_for_a_whole_repository(
    hub: Hub, served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MAKERS["wordpiece"](served)
    open_clip_folder(served, tokenizer="acme/theirs")
    hub.refused.add("tokenizer_config.json")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    with pytest.raises(DownloadError, match=r"tokenizer_config.json: "):
        zoo.build(ADDRESS)
    assert pinned_listing("acme/theirs") is None
    hub.refused.clear()
    zoo.build(ADDRESS)
    assert "tokenizer_config.json" in cached(tmp_path)


def test_a_cache_that_another_program_filled_serves_offline_and_that_is_said(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = open_clip_folder(served)
    huggingface_hub.snapshot_download("acme/theirs")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert equal(zoo.build(ADDRESS).state_dict(), theirs.state_dict())
    assert "acme/theirs is taken as the local cache holds it" in caplog.text
    assert not lock_file().exists()
    next((tmp_path / "cache").rglob("open_clip_pytorch_model.bin")).unlink()
    with pytest.raises(DownloadError, match=r"zoo.json: it is not in the local cache, and HF_HUB_OFFLINE is set"):
        zoo.build(ADDRESS)


# What is refused


def unstated(served: Path) -> None:
    (served / "open_clip_config.json").write_text('{"model_cfg": {"embed_dim": 16, "secret_cfg": 1}}')


def two(served: Path) -> None:
    for name in ("one.bin", "two.bin"):
        shutil.copyfile(served / "open_clip_pytorch_model.bin", served / name)
    (served / "open_clip_pytorch_model.bin").unlink()


def index(served: Path, told: Any) -> None:
    (served / "open_clip_pytorch_model.bin").unlink()
    (served / "model.safetensors.index.json").write_text(json.dumps(told))


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda it: (it / "open_clip_config.json").unlink(), DownloadError, "no zoo.json and no config of a library"),
        (lambda it: (it / "open_clip_pytorch_model.bin").unlink(), DownloadError, "holds no weights that zoo reads"),
        (unstated, ConfigError, "secret_cfg"),
        (two, DownloadError, "several files of weights: one.bin, two.bin"),
        (lambda it: index(it, {"weight_map": {"a": "../a.bin"}}), CheckpointError, "names the file '../a.bin'; allow"),
        (lambda it: index(it, {"weight_map": {"a": "a.bin"}}), DownloadError, "names 'a.bin', which the"),
        (lambda it: index(it, {"weight_map": {"a": ["b"]}}), CheckpointError, "it names the file .*'b'"),
        (lambda it: index(it, []), CheckpointError, "no index of weights .* expected a mapping"),
    ],
    ids=[
        "no config",
        "no weights",
        "an unknown key",
        "several weights",
        "a file elsewhere",
        "a file too many",
        "a list",
        "no mapping",
    ],
)
def test_a_repository_that_is_no_model_is_told(change: Any, kind: type, message: str, served: Path) -> None:
    open_clip_folder(served)
    change(served)
    with pytest.raises(kind, match=message):
        zoo.build(ADDRESS)
    assert pinned_listing("acme/theirs") is None


def test_a_list_of_files_that_cannot_be_had_is_told(hub: Hub, served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_clip_folder(served)
    hub.refused.add("/api/models/")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    with pytest.raises(DownloadError, match="acme/theirs: its files cannot be listed"):
        zoo.build(ADDRESS)


def test_weights_of_ones_own_are_for_an_architecture_and_not_for_a_repository(served: Path) -> None:
    open_clip_folder(served)
    with pytest.raises(InputError, match="weights of its own; leave out pretrained="):
        zoo.build(ADDRESS, pretrained="weights.safetensors")
