"""A Hub that answers with paths, asks to wait, or sends a byte at a time; and a cache that holds pipes."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from support.hf_hub_server import Hub, commit_of, etag_of, used
from zoo_core.errors import DownloadError
from zoo_core.hub.client import TIMEOUT
from zoo_core.hub.files import hub_file
from zoo_hf.config import HfTokenizerConfig

REPO, NAME = "acme/tiny", "tokenizer.json"
CONTENT = b"{}" * 400_000


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Serve a repository with one file of 800 kB."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / NAME).write_bytes(CONTENT)
    with used(tmp_path, monkeypatch) as hub:
        hub.move(REPO, tmp_path / "served")
        yield hub


def by_zoo() -> Path:
    return hub_file(REPO, NAME).path


def by_plugin() -> Path:
    return HfTokenizerConfig(name=REPO, vocab_size=9).fetch([NAME], "tokenizer") / NAME


READERS: Any = pytest.mark.parametrize("read", [by_zoo, by_plugin], ids=["zoo", "plugin"])


def written(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@READERS
@pytest.mark.parametrize(
    "etag", ["../../../escaped", "{folder}/escaped", "..", "", "g" * 40, "a" * 39, "a" * 65, "A" * 40, "a" * 40 + "\t"]
)
def test_a_digest_that_is_none_is_refused_before_a_byte_is_written(
    etag: str, read: Callable[[], Path], hub: Hub, tmp_path: Path
) -> None:
    hub.headers["ETag"] = f'"{etag.format(folder=tmp_path)}"'
    before = written(tmp_path)
    with pytest.raises(DownloadError, match="the server tells a digest that is none: .*; nothing was written"):
        read()
    assert written(tmp_path) == before


@READERS
def test_a_commit_that_is_none_is_refused_before_a_byte_is_written(
    read: Callable[[], Path], hub: Hub, tmp_path: Path
) -> None:
    hub.headers["X-Repo-Commit"] = "../../x"
    before = written(tmp_path)
    with pytest.raises(DownloadError, match=r"the server tells a commit that is none: '../../x'"):
        read()
    assert written(tmp_path) == before


@READERS
@pytest.mark.parametrize("form", ['"{}"', 'W/"{}"', "{}"])
def test_a_digest_is_taken_in_each_form_that_servers_give_it(form: str, read: Callable[[], Path], hub: Hub) -> None:
    hub.headers["ETag"] = form.format(etag_of(NAME, CONTENT))
    assert read().read_bytes() == CONTENT


@READERS
def test_a_hub_that_asks_to_wait_for_an_hour_is_given_up(
    read: Callable[[], Path], hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TIMEOUT, "0.6")
    hub.limited[f"/{NAME}"] = 3600
    start = time.monotonic()
    with pytest.raises(
        DownloadError, match=r"nothing came from the Hub for 0.6 seconds \(its client: .*3601.*set ZOO_HUB_TIM"
    ):
        read()
    assert time.monotonic() - start < 5


def test_a_byte_at_a_time_is_given_up_with_a_word_before(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(TIMEOUT, "1")
    hub.paced[NAME] = (1, 0.1)
    with caplog.at_level(logging.WARNING), pytest.raises(DownloadError, match=f"{REPO}: {NAME}: nothing came from"):
        by_zoo()
    assert "after 1 seconds (ZOO_HUB_TIMEOUT) it is given up" in caplog.text
    hub.paced.clear()
    monkeypatch.setenv(TIMEOUT, "20")
    start = time.monotonic()
    assert by_zoo().read_bytes() == CONTENT  # the download that was given up keeps no lock
    assert time.monotonic() - start < 10


def test_a_slow_download_that_goes_on_is_waited_for(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT, "2")
    hub.paced[NAME] = (270_000, 0.9)
    assert by_zoo().read_bytes() == CONTENT


@pytest.mark.parametrize("seconds", ["x", "0", "-1", "nan", "inf"])
def test_a_limit_that_is_none_is_told(seconds: str, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT, seconds)
    with pytest.raises(DownloadError, match=f"ZOO_HUB_TIMEOUT is a number of seconds, such as 60, found '{seconds}'"):
        by_zoo()


def pipe(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


def device(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir(parents=True)


@pytest.mark.parametrize("make", [pipe, device, folder])
@pytest.mark.parametrize("place", ["blob", "lock", "snapshot"])
@READERS
def test_what_is_no_file_in_the_cache_is_not_opened(
    read: Callable[[], Path], place: str, make: Callable[[Path], None], hub: Hub
) -> None:
    cache = Path(huggingface_hub.constants.HF_HUB_CACHE)
    etag, own = etag_of(NAME, CONTENT), "models--acme--tiny"
    commit = commit_of(REPO, hub.repositories[REPO]["main"])
    places = {
        "blob": cache / own / "blobs" / etag,
        "lock": cache / ".locks" / own / f"{etag}.lock",
        "snapshot": cache / own / "snapshots" / commit / NAME,
    }
    make(places[place])
    with pytest.raises(DownloadError) as caught:
        read()
    assert "is not a regular file; remove it" in str(caught.value)


def test_the_mark_of_a_file_that_was_read_once_is_not_opened_where_it_is_a_pipe(hub: Hub, tmp_path: Path) -> None:
    by_zoo()
    (mark,) = (tmp_path / "home" / "digests").iterdir()
    mark.unlink()
    os.mkfifo(mark)
    assert by_zoo().read_bytes() == CONTENT


def test_calls_that_are_not_ours_are_answered_as_ever(hub: Hub) -> None:
    by_zoo()
    hub.headers["ETag"] = f'"{"g" * 40}"'
    hub.move(REPO, hub.repositories[REPO]["main"], "other")
    found = huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(REPO, NAME))
    assert found.etag == "g" * 40
    assert Path(huggingface_hub.hf_hub_download(REPO, NAME, force_download=True)).read_bytes() == CONTENT
