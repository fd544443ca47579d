"""Tokenizers and encoder configs of the Hub: they stay what they were, and are held to it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import tokenizers
import torch
from tokenizers import models, pre_tokenizers

import zoo
from support.hf_hub_server import Hub, used
from support.models.tiny_configs import TINY
from support.tokenizers.tiny_tokenizers import saved
from zoo_core.errors import DownloadError
from zoo_core.hub.client import TIMEOUT
from zoo_core.hub.lockfile import Listing, lock_file, pinned, pinned_listing
from zoo_hf.config import HfTextConfig, HfTokenizerConfig
from zoo_hf.tokenizer import HfTokenizer
from zoo_hf.tower import HfTextTower

REPO = "acme/part"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "dog"]
IDS = [4, 5, 6, 0, 0, 0]
OTHER_IDS = [6, 5, 4, 0, 0, 0]


def fill(folder: Path, words: list[str] = WORDS, layers: int = 2) -> Path:
    """Write a tokenizer of seven words, and the config of an encoder with as many ids."""
    made = tokenizers.Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]")
    )
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    saved(folder, made, unk_token="[UNK]", pad_token="[PAD]")
    encoder = {"model_type": "bert", "vocab_size": len(words), "hidden_size": 16, "num_attention_heads": 2}
    encoder |= {"intermediate_size": 24, "max_position_embeddings": 16, "num_hidden_layers": layers, "pad_token_id": 0}
    (folder / "config.json").write_text(json.dumps(encoder))
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Serve a repository that holds a tokenizer and the config of an encoder."""
    with used(tmp_path, monkeypatch) as hub:
        hub.move(REPO, fill(tmp_path / "first"))
        yield hub


def ids(**options: Any) -> list[int]:
    config = HfTokenizerConfig(**{"name": REPO, "vocab_size": 7, "pad_id": 0} | options)
    return HfTokenizer(config, context_length=6)(["a cat dog"])[0].tolist()


def layers(**options: Any) -> int:
    config = HfTextConfig(**{"name": REPO, "vocab_size": 7, "context_length": 6} | options)
    return len(HfTextTower(config, embed_dim=4).transformer.encoder.layer)


Read = Callable[..., Any]
PARTS: Any = pytest.mark.parametrize(
    ("read", "file", "first", "second"),
    [(ids, "tokenizer.json", IDS, OTHER_IDS), (layers, "config.json", 2, 3)],
    ids=["tokenizer", "encoder"],
)


def move(hub: Hub, folder: Path, branch: str = "main") -> str:
    """Move a branch to another vocabulary of the same size, and to an encoder with another layer."""
    return hub.move(REPO, fill(folder, WORDS[:4] + WORDS[:3:-1], layers=3), branch)


@PARTS
def test_a_branch_that_moves_does_not_move_the_part(
    read: Read, file: str, first: Any, second: Any, hub: Hub, tmp_path: Path
) -> None:
    assert read() == first
    moved = move(hub, tmp_path / "second")
    assert read() == first
    shutil.rmtree(tmp_path / "cache")
    assert read() == first
    assert read(revision=moved) == second


@PARTS
def test_a_part_that_can_be_had_no_more_is_an_error_that_names_pin_and_fix(
    read: Read, file: str, first: Any, second: Any, hub: Hub, tmp_path: Path
) -> None:
    assert read() == first
    pin = pinned(REPO, file)
    assert pin is not None
    commit = move(hub, tmp_path / "second")
    hub.forget(REPO)
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(DownloadError) as caught:
        read()
    message = str(caught.value)
    key = "tokenizer.name" if read is ids else "text.name"
    assert message.startswith(
        f"{key}: {REPO}: {file}: it is not the file that was pinned at first: sha256 {pin.sha256}"
    )
    assert f"(commit {commit}, " in message
    assert message.endswith(f"to take what the Hub has now, take its lines out of {lock_file()}")
    assert (caught.value.repo, caught.value.file) == (REPO, file)
    lock_file().unlink()  # as the error advises
    assert read() == second


@PARTS
def test_the_lock_file_holds_commit_and_bytes_of_each_file_and_the_list(
    read: Read, file: str, first: Any, second: Any, hub: Hub
) -> None:
    read()
    commit = hub.move(REPO, hub.repositories[REPO]["main"])
    part, files = ("text", ["config.json"]) if read is layers else ("tokenizer", ["tokenizer.json", "tokenizer_config.json", "config.json"])  # fmt: skip
    told = json.loads(lock_file().read_text())
    assert told["listings"] == {f"{REPO}:{part}": {"commit": commit, "files": files}}
    assert set(told["pins"][REPO]) == set(files)
    for name in files:
        pin = pinned(REPO, name)
        assert pin is not None
        assert (pin.commit, pin.size) == (commit, (hub.repositories[REPO]["main"] / name).stat().st_size)
    assert pinned_listing(REPO) is None  # which would be that of a whole model


@PARTS
@pytest.mark.parametrize("options", [{}, {"local_files_only": True}])
def test_what_was_taken_once_needs_no_hub(
    read: Read, file: str, first: Any, second: Any, options: Any, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    read()
    hub.requests.clear()
    assert read(**options) == first
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", not options)
    assert read(**options) == first
    assert hub.requests == []


@PARTS
def test_a_changed_byte_in_the_cache_is_refused_and_had_anew(
    read: Read, file: str, first: Any, second: Any, hub: Hub, tmp_path: Path
) -> None:
    read()
    (path,) = (tmp_path / "cache").rglob(f"snapshots/*/{file}")
    content = path.read_bytes()
    path.resolve().write_bytes(content.replace(b"cat", b"cut") if read is ids else content.replace(b"2", b"3"))
    with pytest.raises(DownloadError, match=f"{REPO}: {file}: it is damaged: .* so ask again"):
        read()
    assert read() == first


@PARTS
def test_each_revision_has_a_pin_of_its_own(
    read: Read, file: str, first: Any, second: Any, hub: Hub, tmp_path: Path
) -> None:
    assert read() == first
    move(hub, tmp_path / "second", "v2")
    assert [read(), read(revision="v2")] == [first, second]
    hub.move(REPO, tmp_path / "first", "v2")
    assert [read(), read(revision="v2")] == [first, second]
    with pytest.raises(DownloadError, match=f"{REPO} at revision 'v3': the repository has no such revision"):
        read(revision="v3")


@PARTS
def test_what_the_cache_held_before_there_was_a_pin_serves_offline_and_that_is_said(
    read: Read,
    file: str,
    first: Any,
    second: Any,
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    huggingface_hub.snapshot_download(REPO, allow_patterns=["tokenizer*", "config.json"])
    hub.requests.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert read() == first
    assert f"{REPO} is taken as the local cache holds it" in caplog.text
    assert hub.requests == []
    assert json.loads(lock_file().read_text())["listings"] == {}
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    move(hub, tmp_path / "second")
    assert read() == first


def test_a_hub_that_gives_no_answer_leaves_what_the_cache_holds(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    huggingface_hub.snapshot_download(REPO)
    hub.refused.add("/")
    assert ids() == IDS
    assert "whether files are missing cannot be told offline" in caplog.text


def test_a_hub_that_stalls_leaves_what_the_cache_holds(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huggingface_hub.snapshot_download(REPO)
    monkeypatch.setenv(TIMEOUT, "0.6")
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: time.sleep(1.5))
    assert ids() == IDS
    shutil.rmtree(tmp_path / "cache")
    lock_file().unlink()
    with pytest.raises(DownloadError, match=r"the Hub cannot be reached \(nothing came from the Hub for 0.6 seconds"):
        ids()


def test_a_download_that_was_interrupted_is_not_taken_for_a_whole_tokenizer(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    hub.refused.add("/tokenizer_config.json")
    with pytest.raises(DownloadError, match="tokenizer_config.json: .* the Hub cannot be reached"):
        ids()
    assert pinned_listing(REPO, part="tokenizer") is None
    hub.refused.clear()
    assert ids() == IDS
    assert pinned_listing(REPO, part="tokenizer") is not None


def test_a_tokenizer_is_of_the_commit_that_the_encoder_beside_it_is_of(hub: Hub, tmp_path: Path) -> None:
    assert layers() == 2
    move(hub, tmp_path / "second")
    assert ids() == IDS


def test_a_file_beside_the_pinned_ones_is_not_read(hub: Hub, tmp_path: Path) -> None:
    ids()
    (folder,) = (tmp_path / "cache").rglob("snapshots/*")
    (folder / "added_tokens.json").write_text('{"cat": 6}')
    with pytest.raises(
        DownloadError, match="added_tokens.json is none of the files that the repository had .* remove it"
    ):
        ids()
    (folder / "added_tokens.json").unlink()
    assert ids() == IDS


def test_a_history_that_was_rewritten_with_the_same_bytes_is_followed(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids()
    fill(tmp_path / "squashed")
    (tmp_path / "squashed" / "README.md").write_text("squashed")
    commit = hub.move(REPO, tmp_path / "squashed")
    hub.forget(REPO)
    shutil.rmtree(tmp_path / "cache")
    assert ids() == IDS
    listing = pinned_listing(REPO, part="tokenizer")
    assert isinstance(listing, Listing)
    assert listing.commit == commit
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert ids() == IDS


def test_a_repository_without_a_tokenizer_is_told(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").write_text("nothing")
    hub.move(REPO, tmp_path / "empty")
    with pytest.raises(
        DownloadError, match=f"tokenizer.name: {REPO}: the repository holds none of tokenizer.json, .*, or name"
    ):
        ids()


@pytest.mark.parametrize("name", ["a/b/c", "a b", "-x"])
def test_a_name_that_no_repository_can_have_is_told(name: str, hub: Hub) -> None:
    with pytest.raises(DownloadError, match="tokenizer.name: .*: that is no name of a repository"):
        ids(name=name)


def test_a_saved_model_brings_its_tokenizer_and_asks_nothing(hub: Hub, tmp_path: Path) -> None:
    config = TINY | {
        "text": {"tower": "hf-text", "name": REPO, "vocab_size": 7, "context_length": 6},
        "tokenizer": {"type": "hf", "name": REPO, "vocab_size": 7, "pad_id": 0},
    }
    torch.manual_seed(0)
    folder = zoo.save(zoo.build(config), tmp_path / "model")
    shutil.rmtree(tmp_path / "cache")
    shutil.rmtree(tmp_path / "home")
    hub.requests.clear()
    model: Any = zoo.load(folder, verify=True, probe=True)
    assert model.tokenizer(["a cat dog"])[0].tolist() == IDS
    assert hub.requests == []
    assert not lock_file().exists()
