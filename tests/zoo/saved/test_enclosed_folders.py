"""A folder with a model may be somebody else's: its config names nothing outside of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import zoo
from support.checkpoints.openclip_folders import open_clip_folder
from support.hf_hub_server import used
from support.tokenizers.tiny_tokenizers import wordpiece
from zoo.building.source import config as config_of
from zoo.saved.manifest import digest_of, file_digests
from zoo_core.errors import ConfigError


def saved(folder: Path, changes: dict[str, Any]) -> Path:
    """Save a model whose config somebody changed afterwards, with digests that fit."""
    zoo.save(zoo.build("digits-tiny", pretrained="demo"), folder)
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        (config[section] if section else config)[name] = value
    path.write_text(yaml.safe_dump(config))
    origin = json.loads((folder / "zoo.json").read_text())
    origin["files"] = file_digests(folder)
    (folder / "zoo.json").write_text(json.dumps(origin | {"digest": digest_of(origin)}))
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Return an architecture beside the folder, which extends nothing."""
    path = tmp_path / "outside.yaml"
    path.write_text("extends: digits-tiny\n")
    return path


EXTENDS: dict[str, Callable[[Path], str]] = {
    "the folder above": lambda outside: "../outside.yaml",
    "an absolute path": str,
    "up and down": lambda outside: "x/../../outside.yaml",
    "a home": lambda outside: "~/outside.yaml",
    "a link": lambda outside: "link.yaml",
    "a drive": lambda outside: "C:\\outside.yaml",
}


@pytest.mark.parametrize("case", EXTENDS)
def test_a_saved_model_extends_no_file_elsewhere(case: str, outside: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", {"extends": EXTENDS[case](outside)})
    (folder / "link.yaml").symlink_to(outside)
    with pytest.raises(ConfigError) as caught:
        zoo.load(folder)
    told = str(caught.value)
    assert told.startswith(f"{folder / 'config.yaml'}:")
    assert f"extends: names a file outside of {folder}: " in told
    assert told.endswith("allowed: an architecture, or a file in it")


def test_neither_does_a_file_that_it_extends(outside: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", {"extends": "inner.yaml"})
    (folder / "inner.yaml").write_text("extends: ../outside.yaml\n")
    with pytest.raises(ConfigError, match=r"inner.yaml:1:1: extends: names a file outside of .*: '\.\./outside.yaml'"):
        zoo.load(folder)
    (folder / "inner.yaml").write_text("extends: digits-tiny\n")
    assert zoo.load(folder).config.embed_dim == zoo.config("digits-tiny").embed_dim


def test_an_architecture_of_ones_own_extends_what_it_likes(outside: Path, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    mine = tmp_path / "below" / "mine.yaml"
    mine.write_text("extends: ../outside.yaml\n")
    assert zoo.config(mine) == zoo.config("digits-tiny")
    mine.write_text(f"extends: {outside}\n")
    assert zoo.config(mine) == zoo.config("digits-tiny")


PLACES = ["/words", "../words", "./words", "~/words", ".", "./tokenizer/../../words"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("read", [zoo.load, zoo.build, zoo.tokenizer], ids=["load", "build", "tokenizer"])
def test_the_tokenizer_of_a_saved_model_is_in_no_folder_elsewhere(place: str, read: Any, tmp_path: Path) -> None:
    tokenizer = {"type": "hf", "name": place, "vocab_size": 300}
    folder = saved(tmp_path / "model", {"tokenizer": tokenizer})
    with pytest.raises(ConfigError) as caught:
        read(folder)
    told = str(caught.value)
    assert told.startswith(f"{folder / 'config.yaml'}:")
    assert f"tokenizer.name: names a place outside of {folder}: '{place}'" in told
    assert told.endswith("if you trust it, say overrides=['tokenizer.name=...']")


def test_the_advice_works(tmp_path: Path) -> None:
    words = wordpiece(tmp_path / "words")
    section = {"type": "hf", "name": "/words", "vocab_size": 120}
    folder = saved(tmp_path / "model", {"tokenizer": section})
    model: Any = zoo.build(folder, overrides=[f"tokenizer={json.dumps(section | {'name': str(words)})}"])
    assert model.config.tokenizer.name == str(words)
    assert model.tokenizer(["a photo"]).shape[0] == 1
    assert config_of(folder, [f"tokenizer.name={words}"]).tokenizer == model.config.tokenizer


def test_a_folder_of_another_library_names_no_folder_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs").mkdir()
    open_clip_folder(tmp_path / "theirs")
    path = tmp_path / "theirs" / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "/words"
    path.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=f"tokenizer.name: names a place outside of {tmp_path / 'theirs'}: '/words'"):
        zoo.build(tmp_path / "theirs")
    with used(tmp_path, monkeypatch) as hub:
        hub.move("acme/theirs", tmp_path / "theirs")
        with pytest.raises(ConfigError, match=r"tokenizer.name: names a place outside of .*snapshots"):
            zoo.build("hf-hub:acme/theirs")
