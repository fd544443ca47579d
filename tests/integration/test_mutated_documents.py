"""Every document that zoo reads, with a key dropped, renamed, retyped, made extreme or nested: equal, or one ZooError."""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import zoo
from support.checkpoints.openclip_folders import open_clip_folder
from support.models.tiny_architectures import CLIP
from zoo.building.source import config as config_of
from zoo.checkpoints.containers import open_container
from zoo.inference.profiling import mend_trace
from zoo.saved.manifest import digest_of, file_digests
from zoo_core.errors import ZooError
from zoo_core.hub.lockfile import pinned, pinned_listing

SECONDS = 10


@dataclass(frozen=True, repr=False)
class Reader:
    """A document in a folder of its own, and what reads it."""

    folder: Path
    name: str
    read: Callable[[Path], Any]
    write: Callable[[Path, Any], None]
    document: Any


def write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data))


def write_yaml(path: Path, data: Any) -> None:
    path.write_text(yaml.safe_dump(data))


def write_header(path: Path, data: Any) -> None:
    """Put another header before the tensors of a safetensors file."""
    content = path.read_bytes()
    tensors = content[8 + int.from_bytes(content[:8], "little") :]
    header = json.dumps(data).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + tensors)


def read_header(path: Path) -> Any:
    content = path.read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def fitting(folder: Path) -> None:
    """Make the digests of a saved model fit, as whoever changes it on purpose would."""
    path = folder / "zoo.json"
    origin = json.loads(path.read_text())
    if isinstance(origin, dict):
        if path.with_name("fit").exists():
            origin["files"] = file_digests(folder)
        path.write_text(json.dumps(origin | {"digest": digest_of(origin)}))


def load(path: Path) -> Any:
    fitting(path.parent)
    return zoo.load(path.parent, probe=True).config


def weights(path: Path) -> Any:
    source = open_container(path)
    return {key: source.read(key).shape for key in source.entries}


def trace(path: Path) -> None:
    mend_trace(json.loads(path.read_text()))


def lock(path: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_HOME", str(path.parent))
        return pinned("acme/digits", "a.bin"), pinned_listing("acme/digits")


def event(category: str) -> dict[str, Any]:
    return {"ph": "X", "cat": category, "name": "x", "pid": 1, "tid": 2, "ts": 0, "dur": 1.5, "args": {}}


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    """Return a whole document of each kind."""
    from safetensors.torch import save_file

    root = tmp_path_factory.mktemp("documents")
    found: dict[str, Reader] = {}

    def add(kind: str, name: str, read: Any, write: Any = write_json, document: Any = None) -> None:
        folder = root / kind
        folder.mkdir(exist_ok=True)
        if document is not None:
            write(folder / name, document)
        found[kind] = Reader(folder, name, read, write, document)

    model = zoo.build("digits-tiny", pretrained="demo")
    for kind in ("zoo.json", "config.yaml"):
        zoo.save(model, root / kind)
    (root / "config.yaml" / "fit").touch()
    add("zoo.json", "zoo.json", load, document=json.loads((root / "zoo.json" / "zoo.json").read_text()))
    add("config.yaml", "config.yaml", load, write_yaml, yaml.safe_load((root / "config.yaml/config.yaml").read_text()))
    sha1, sha256 = "c" * 40, "d" * 64
    pins = {"acme/digits": {"a.bin": {"commit": sha1, "sha256": sha256, "size": 3}}}
    listings = {"acme/digits": {"commit": sha1, "files": ["a.bin"]}}
    add("lock", "pretrained.lock.json", lock, document={"format": 1, "pins": pins, "listings": listings})
    (root / "shards").mkdir()
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(4)}, root / "shards" / "one.safetensors")
    index = {"metadata": {"total_size": 40}, "weight_map": {"a": "one.safetensors", "b": "one.safetensors"}}
    add("shards", "model.safetensors.index.json", weights, document=index)
    (root / "header").mkdir()
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(4)}, root / "header" / "w.safetensors", metadata={"x": "y"})
    add("header", "w.safetensors", weights, write_header, read_header(root / "header" / "w.safetensors"))
    (root / "open_clip").mkdir()
    open_clip_folder(root / "open_clip")
    stated = json.loads((root / "open_clip" / "open_clip_config.json").read_text())
    add("open_clip", "open_clip_config.json", lambda path: config_of(path.parent), document=stated)
    zoo.save(zoo.build(CLIP), root / "built")
    zoo.convert(root / "built", root / "transformers", to="transformers")
    shutil.copytree(root / "transformers", root / "preprocessor")
    for kind, name in (("transformers", "config.json"), ("preprocessor", "preprocessor_config.json")):
        document = json.loads((root / kind / name).read_text())
        add(kind, name, lambda path: config_of(path.parent), document=document)
    events = [event("cpu_op"), event("python_function"), event("user_annotation")]
    add("trace", "trace.json", trace, document={"schemaVersion": 1, "traceEvents": events})
    return found


KINDS = ["zoo.json", "config.yaml", "lock", "shards", "header", "open_clip", "transformers", "preprocessor", "trace"]
NAMED = {"zoo.json", "config.yaml", "lock", "shards", "header"}
"""Documents whose file every error names; what another library states is named by the key of the architecture."""

ANYTHING: list[Any] = [None, True, 0, 5, -1, 10**30, 1.5, float("nan"), "", "x", "../x", "x" * 5000, "${a}", [], {}]
ANYTHING += [[[]], [None], {"": {}}, {"a": {"b": []}}, [1, "a", None], 100_000]


def deep(value: Any) -> Any:
    for _ in range(40):
        value = {"a": [value]}
    return value


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value below the top."""
    items = list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
    below = [found for key, value in items[:40] for found in places(value, (*path, key))]
    return [*([path] if path else []), *below]


def changed(document: Any, path: tuple[Any, ...], what: str, value: Any) -> Any:
    """Return a copy of a document with one thing done to the value at a path."""
    found = copy.deepcopy(document)
    node = found
    for key in path[:-1]:
        node = node[key]
    last, before = path[-1], node[path[-1]]
    if what == "drop":
        del node[last]
    elif what == "rename" and isinstance(node, dict):
        node[f"{last}x"] = node.pop(last)
    elif what == "nest":
        node[last] = {last if isinstance(last, str) else "a": before}
    elif what == "list":
        node[last] = [before, before]
    elif what == "deep":
        node[last] = deep(before)
    else:
        node[last] = value
    return found


def check(reader: Reader, kind: str, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(places(reader.document)))
    what = data.draw(st.sampled_from(["drop", "rename", "nest", "list", "deep", *["put"] * 5]))
    value = data.draw(st.sampled_from(ANYTHING))
    reader.write(reader.folder / reader.name, changed(reader.document, path, what, value))
    start = time.monotonic()
    try:
        reader.read(reader.folder / reader.name)
    except ZooError as error:
        assert kind not in NAMED or str(reader.folder) in str(error)
        assert len(str(error)) < 20_000
    finally:
        reader.write(reader.folder / reader.name, reader.document)
    assert time.monotonic() - start < SECONDS


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(data=st.data())
def test_a_changed_document_is_read_or_refused(kind: str, data: st.DataObject, readers: dict[str, Reader]) -> None:
    check(readers[kind], kind, data)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_document_changed_anywhere_is_read_or_refused(
    kind: str, data: st.DataObject, readers: dict[str, Reader]
) -> None:
    check(readers[kind], kind, data)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unchanged_document_is_read(kind: str, readers: dict[str, Reader]) -> None:
    reader = readers[kind]
    reader.write(reader.folder / reader.name, reader.document)
    reader.read(reader.folder / reader.name)
