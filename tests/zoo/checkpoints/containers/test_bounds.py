"""Bounds of weight files: what reaches a bound is read, and one more is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import save_file

from zoo.checkpoints.containers import npz, open_container, safetensors, shards
from zoo_core.errors import CheckpointError


def weights(folder: Path, count: int) -> Path:
    path = folder / "x.safetensors"
    save_file({f"t{number}": torch.zeros(1) for number in range(count)}, path)
    return path


def index(folder: Path, files: int, tensors: int) -> Path:
    """Write an index and its files, over which the tensors are spread."""
    owners = {f"t{number}": f"{number % files}.safetensors" for number in range(tensors)}
    for name in set(owners.values()):
        save_file({key: torch.zeros(1) for key, owner in owners.items() if owner == name}, folder / name)
    path = folder / "x.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": owners}))
    return path


def test_a_file_may_hold_as_many_tensors_as_the_bound_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors, "MAX_TENSORS", 3)
    assert len(open_container(weights(tmp_path, 3)).entries) == 3
    with pytest.raises(CheckpointError, match="it lists 4 tensors, more than any model has; allowed: 3"):
        open_container(weights(tmp_path, 4))


def test_an_archive_of_numpy_may_hold_as_many_arrays_as_the_bound_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz, "MAX_TENSORS", 3)
    for count in (3, 4):
        arrays: dict[str, Any] = {f"t{number}": numpy.zeros(1) for number in range(count)}
        numpy.savez(tmp_path / f"{count}.npz", **arrays)
    assert len(open_container(tmp_path / "3.npz").entries) == 3
    with pytest.raises(CheckpointError, match="it lists 4 arrays, more than any model has; allowed: 3"):
        open_container(tmp_path / "4.npz")


def test_a_header_may_be_as_long_as_the_bound_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = weights(tmp_path, 2)
    length = int.from_bytes(path.read_bytes()[:8], "little")
    monkeypatch.setattr(safetensors, "MAX_HEADER", length)
    assert len(open_container(path).entries) == 2
    monkeypatch.setattr(safetensors, "MAX_HEADER", length - 1)
    with pytest.raises(CheckpointError, match=f"its header of {length} bytes is longer than any model's"):
        open_container(path)


def test_an_index_may_name_as_many_files_as_the_bound_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_SHARDS", 2)
    assert len(open_container(index(tmp_path, files=2, tensors=4)).entries) == 4
    with pytest.raises(CheckpointError, match="it names 3 files; allowed: 2"):
        open_container(index(tmp_path, files=3, tensors=4))


def test_an_index_may_name_a_thousand_files(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors.index.json"
    for count, message in ((1_000, "0.safetensors is no file"), (1_001, "it names 1001 files; allowed: 1000")):
        path.write_text(json.dumps({"weight_map": {f"t{number}": f"{number}.safetensors" for number in range(count)}}))
        with pytest.raises(CheckpointError, match=message):
            open_container(path)


def test_an_index_may_hold_twice_as_many_values_as_tensors(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors.index.json"
    path.write_text('{"metadata": [' + "0," * 200_000 + "0]}")
    with pytest.raises(CheckpointError, match="line 1: has more than 200,000 values"):
        open_container(path)


def test_an_index_may_list_as_many_tensors_as_the_bound_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_TENSORS", 4)
    assert len(open_container(index(tmp_path, files=2, tensors=4)).entries) == 4
    with pytest.raises(CheckpointError, match="it lists 5 tensors; allowed: 4"):
        open_container(index(tmp_path, files=2, tensors=5))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\\b", "a\0b", 3, None])
def test_an_index_names_files_beside_it_alone(name: object, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"t": name}}))
    with pytest.raises(CheckpointError, match="allowed: names of files beside it"):
        open_container(path)
