"""Where the lock file and the cache of a user are, and a lock file that an older version left."""

from __future__ import annotations

import json
from pathlib import Path

import platformdirs
import pytest
import typer

from zoo_core.files.user_folders import user_cache_folder, user_data_file
from zoo_core.hub.lockfile import Pin, lock_file, pin, pinned

STATE = Pin(commit="c" * 40, sha256="d" * 64, size=7)
NAME = "pretrained.lock.json"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the user an empty home."""
    for name in ("ZOO_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    return tmp_path


def test_the_lock_file_is_data_and_what_can_be_made_again_is_cache(home: Path) -> None:
    assert user_data_file(NAME) == Path(platformdirs.user_data_dir("zoo", appauthor=False)) / NAME
    assert user_cache_folder() == Path(platformdirs.user_cache_dir("zoo", appauthor=False))
    assert home in user_data_file(NAME).parents
    assert home in user_cache_folder().parents


def test_one_folder_holds_both_where_the_environment_names_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    former = Path(typer.get_app_dir("zoo")) / NAME
    former.parent.mkdir(parents=True)
    former.touch()
    monkeypatch.setenv("ZOO_HOME", str(home / "mine"))
    assert user_data_file(NAME) == home / "mine" / NAME
    assert user_cache_folder() == home / "mine"


def test_a_lock_file_that_an_older_version_left_is_honoured_and_kept() -> None:
    former = Path(typer.get_app_dir("zoo")) / NAME
    former.parent.mkdir(parents=True)
    pins = {"acme/digits": {"a.safetensors": STATE.data()}}
    former.write_text(json.dumps({"format": 1, "pins": pins}))
    assert pinned("acme/digits", "a.safetensors") == STATE
    pin("acme/digits", "b.safetensors", STATE)
    assert lock_file() == former
    assert set(json.loads(former.read_text())["pins"]["acme/digits"]) == {"a.safetensors", "b.safetensors"}


def test_a_lock_file_at_its_place_comes_before_an_older_one() -> None:
    pin("acme/digits", "a.safetensors", STATE)
    path = lock_file()
    former = Path(typer.get_app_dir("zoo")) / NAME
    former.parent.mkdir(parents=True, exist_ok=True)
    former.write_text("{}" if former != path else path.read_text())
    assert lock_file() == path
    assert pinned("acme/digits", "a.safetensors") == STATE


def test_a_folder_that_no_system_can_name_is_taken_as_one_without_a_lock_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/" + "x" * 5_000)
    monkeypatch.setenv("XDG_DATA_HOME", "/" + "y" * 5_000)
    assert user_data_file(NAME).name == NAME
