"""Documents that zoo wrote, as somebody else left them: a digest that fits proves nothing about their shape."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

import zoo
from support.models.tiny_clip import ARCHITECTURE
from zoo.saved.manifest import digest_of
from zoo_core.errors import CheckpointError, ConfigError
from zoo_core.hub.lockfile import Listing, Pin, lock_file, pin, pin_listing, pinned, pinned_listing

SHA1, SHA256 = "c" * 40, "d" * 64


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zoo.save(zoo.build("digits-tiny", pretrained="demo"), tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def rewrite(saved: Path) -> Any:
    """Return a function that changes `zoo.json` and makes its digest fit; it is restored afterwards."""
    path = saved / "zoo.json"
    before = path.read_text()

    def rewritten(change: Callable[[dict[str, Any]], object]) -> Path:
        origin = copy.deepcopy(json.loads(before))
        change(origin)
        path.write_text(json.dumps(origin | {"digest": digest_of(origin)}))
        return saved

    yield rewritten
    path.write_text(before)


def put(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(origin: dict[str, Any]) -> None:
        node: Any = origin
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value

    return change


MALFORMED = {
    "no files": (put("files", value=None), "files: expected a section of keys, found None"),
    "files without config": (put("files", value={}), "files: has no digest of config.yaml"),
    "a file without a digest": (put("files", "config.yaml", value={"size": 3}), "files.config.yaml.sha256: required key"),
    "a file that is a number": (put("files", "config.yaml", value=5), "files.config.yaml: expected a section of keys"),
    "a size below nothing": (put("files", "config.yaml", "size", value=-1), "files.config.yaml.size: must be at least 0"),
    "a digest that is none": (put("files", "config.yaml", "sha256", value="0"), "files.config.yaml.sha256: "),
    "a file elsewhere": (put("files", "../x", value={"size": 0, "sha256": SHA256}), "names a file outside of the folder: '../x'"),
    "an absolute file": (put("files", "/x", value={"size": 0, "sha256": SHA256}), "names a file outside of the folder: '/x'"),
    "empty probe": (put("probe", value={}), "probe.environment: required key is missing"),
    "probe that is a list": (put("probe", value=[1]), "probe: expected a section of keys, found [1]"),
    "dtype that is none": (put("probe", "environment", "dtype", value="x"), "probe.environment.dtype: 'x' is not known"),
    "dtype that is a function": (put("probe", "environment", "dtype", value="load"), "probe.environment.dtype: 'load' is not known"),
    "image without pixels": (put("probe", "image", value={"features": [[1.0]]}), "probe.image.pixels: required key is missing"),
    "image with nothing": (put("probe", "image", value=None), "probe.image: expected a section of keys"),
    "features that are text": (put("probe", "image", "features", value="x"), "probe.image.features: "),
    "rows of two lengths": (put("probe", "image", "features", value=[[1.0], [1.0, 2.0]]), "probe.image.features: its rows differ in length"),
    "features that are not finite": (put("probe", "image", "features", value=[[float("nan")]]), "probe.image.features[0][0]: expected a finite number"),
    "ids that are text": (put("probe", "text", "ids", value=[["a"]]), "probe.text.ids[0][0]: expected a whole number"),
    "huge ids": (put("probe", "text", "ids", value=[[10**30]] * 3), "probe.text.ids[0][0]: "),
    "other number of ids": (put("probe", "text", "ids", value=[[1]]), "probe.text.captions: 3 captions, but other numbers"),
    "captions that are a number": (put("probe", "text", "captions", value=3), "probe.text.captions: "),
    "parts that are a list": (put("parts", value=[]), "parts: expected a section of keys, found []"),
    "versions that are numbers": (put("versions", "torch", value=2), "versions.torch: expected a string, found 2"),
    "a source that is text": (put("source", value="x"), "source: expected a section of keys"),
    "an unknown key": (put("weights", value="x"), "weights: unknown key"),
    "another format": (put("format", value=True), "format: expected format 2, found True"),
    "a format that is a list": (put("format", value=[2]), "format: expected format 2, found [2]"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
@pytest.mark.parametrize("read", [zoo.load, zoo.verify, zoo.build], ids=["load", "verify", "build"])
def test_a_zoo_json_of_another_shape_is_told_with_its_key(case: str, read: Any, rewrite: Any) -> None:
    change, message = MALFORMED[case]
    folder = rewrite(change)
    with pytest.raises(CheckpointError) as caught:
        read(folder)
    told = str(caught.value)
    assert told.startswith(f"{folder / 'zoo.json'}:")
    assert message in told
    assert "\n" not in told


DAMAGED = {
    "deep": ("[" * 100_000, "is nested deeper than 8 levels"),
    "deep objects": ('{"a":' * 100_000, "is nested deeper than 8 levels"),
    "doubled key": ('{"format": 2, "format": 2}', "format: duplicate key"),
    "a list": ("[]", "expected a mapping of keys at the top level"),
    "cut": ('{"format": 2', "is not JSON"),
    "many values": ("[" + "1," * 500_000 + "1]", "has more than 400,000 values"),
    "large": ("x" * (4 * 2**20 + 1), "bytes; at most 4,194,304 are read"),
    "binary": ("\0", "is a binary file, expected text"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_zoo_json_that_is_no_json_is_told(case: str, saved: Path, rewrite: Any) -> None:
    text, message = DAMAGED[case]
    rewrite(lambda origin: None)
    (saved / "zoo.json").write_text(text)
    with pytest.raises(CheckpointError) as caught:
        zoo.load(saved)
    assert message in str(caught.value)


def test_a_zoo_json_that_is_a_pipe_is_not_opened(saved: Path, rewrite: Any) -> None:
    path = saved / "zoo.json"
    before = path.read_text()
    path.unlink()
    os.mkfifo(path)
    try:
        with pytest.raises(CheckpointError, match=r"zoo\.json: is not a regular file"):
            zoo.load(saved)
    finally:
        path.unlink()
        path.write_text(before)


def test_a_zoo_json_is_parsed_once_a_load(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.saved import manifest as digests

    calls: list[str] = []
    parse = digests.read_json
    monkeypatch.setattr(digests, "read_json", lambda *args: calls.append(str(args[0])) or parse(*args))
    zoo.load(saved, probe=True)
    assert calls == [str(saved / "zoo.json")]


def test_the_dtype_of_a_probe_that_was_not_recorded_in_float32_is_read(tmp_path: Path) -> None:
    model = zoo.build("digits-tiny", pretrained="demo", dtype=torch.bfloat16)
    zoo.load(zoo.save(model, tmp_path / "model"), probe=True)


# The lock file

LOCK = {
    "format": 1,
    "pins": {"acme/digits": {"a.bin": {"commit": SHA1, "sha256": SHA256, "size": 3}}},
    "listings": {"acme/digits": {"commit": SHA1, "files": ["a.bin"]}},
}


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    return lock_file()


def test_a_lock_file_is_read_and_written(lock: Path) -> None:
    lock.write_text(json.dumps(LOCK))
    assert pinned("acme/digits", "a.bin") == Pin(commit=SHA1, sha256=SHA256, size=3)
    assert pinned_listing("acme/digits") == Listing(commit=SHA1, files=("a.bin",))
    pin("acme/digits", "b.bin", Pin(commit=SHA1, sha256=SHA256, size=4), "v1")
    pin_listing("acme/digits", Listing(commit=SHA1, files=("b.bin",)), "v1")
    told = json.loads(lock.read_text())
    assert told["pins"] == LOCK["pins"] | {"acme/digits@v1": {"b.bin": {"commit": SHA1, "sha256": SHA256, "size": 4}}}
    assert told["listings"]["acme/digits@v1"] == {"commit": SHA1, "files": ["b.bin"]}
    assert pinned("acme/digits", "b.bin") is None


LOCKS = {
    "cut": ("{", ":1:2: is not JSON"),
    "a list": ("[]", ":1:1: expected a mapping of keys at the top level"),
    "another format": ({**LOCK, "format": 2}, "format: "),
    "no format": ({"pins": {}}, "format: required key is missing"),
    "pins that are null": ({**LOCK, "pins": None}, "pins: expected a section of keys, found None"),
    "a repository that is a list": ({**LOCK, "pins": {"a/b": []}}, "pins.a/b: expected a section of keys, found []"),
    "an empty pin": ({**LOCK, "pins": {"a/b": {"c": {}}}}, "pins.a/b.c.commit: required key is missing"),
    "a commit that is a number": (
        {**LOCK, "pins": {"a/b": {"c": {"commit": 5, "sha256": SHA256, "size": 1}}}},
        "pins.a/b.c.commit: expected a string, found 5",
    ),
    "a commit that is a path": (
        {**LOCK, "pins": {"a/b": {"c": {"commit": f"../{SHA1}", "sha256": SHA256, "size": 1}}}},
        "pins.a/b.c.commit: ",
    ),
    "a size that is text": (
        {**LOCK, "pins": {"a/b": {"c": {"commit": SHA1, "sha256": SHA256, "size": "1"}}}},
        "pins.a/b.c.size: expected a whole number, found '1'",
    ),
    "listings that are a list": ({**LOCK, "listings": []}, "listings: expected a section of keys, found []"),
    "no files": ({**LOCK, "listings": {"a/b": {"commit": SHA1, "files": []}}}, "listings.a/b.files: "),
    "files that are text": ({**LOCK, "listings": {"a/b": {"commit": SHA1, "files": "x"}}}, "listings.a/b.files: "),
    "a file elsewhere": (
        {**LOCK, "listings": {"a/b": {"commit": SHA1, "files": ["../x"]}}},
        "listings.a/b.files[0]: names a file outside of the folder: '../x'",
    ),
    "an unknown key": ({**LOCK, "pin": {}}, "pin: unknown key, did you mean 'pins'?"),
    "deep": ("[" * 100_000, "is nested deeper than 8 levels"),
}


@pytest.mark.parametrize("case", LOCKS)
def test_a_lock_file_of_another_shape_is_told_with_its_key(case: str, lock: Path) -> None:
    content, message = LOCKS[case]
    lock.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ConfigError) as caught:
        pinned("acme/digits", "a.bin")
    told = str(caught.value)
    assert told.startswith(f"{lock}:")
    assert message in told
    assert told.endswith("; mend this lock file, or remove it to pin what the Hub has now")


@pytest.mark.parametrize("name", ["pretrained.lock.json", "pretrained.lock.json.lock"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_a_lock_file_that_is_no_file_is_not_opened(name: str, make: Any, lock: Path) -> None:
    make(lock.with_name(name))
    with pytest.raises(ConfigError, match="is not a regular file"):
        pin("acme/digits", "a.bin", Pin(commit=SHA1, sha256=SHA256, size=3))


def test_a_pin_waits_for_another_process_for_a_while_and_then_says_so(
    lock: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("zoo_core.hub.lockfile.LOCK_SECONDS", 0.1)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{lock}.lock"):
        pin("acme/tiny", "a.bin", Pin(commit=SHA1, sha256=SHA256, size=3))
    assert "a.bin of acme/tiny is not pinned" in caplog.text
    assert not lock.exists()


def test_a_user_folder_that_no_system_can_name_costs_only_what_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_HOME", "x" * 5_000)
    monkeypatch.setattr("zoo.inference.autotune.measured", lambda calls: [1.0] * len(calls))
    assert zoo.build(ARCHITECTURE, optimize="inference").optimizations is not None
