"""Weights in several files, listed by an index in JSON.

The index says which file holds which tensor. One that names a file outside its folder is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from zoo.checkpoints.containers.safetensors import MAX_HEADER, MAX_TENSORS
from zoo_core.checkpoints import TensorInfo, TensorSource, shown
from zoo_core.documents import Bounds
from zoo_core.documents.json_reader import read_json
from zoo_core.errors import CheckpointError, ConfigError, describe

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MAX_SHARDS", "ShardedSource", "read_index"]

MAX_SHARDS = 1000
BOUNDS = Bounds(bytes=MAX_HEADER, values=2 * MAX_TENSORS)


class ShardedSource(TensorSource):
    """The tensors of several files.

    Args:
        path: the index.
        open_shard: opens one of the files.

    Raises:
        CheckpointError: the index is damaged, a file is not there, or index and files disagree.
    """

    metadata: Mapping[str, str] = {}

    def __init__(self, path: Path, open_shard: Callable[[Path], TensorSource]) -> None:
        self.path = path
        owners = read_index(path)
        names = list(dict.fromkeys(owners.values()))
        if len(names) > MAX_SHARDS:
            raise self._wrong(f"it names {len(names)} files; allowed: {MAX_SHARDS}")
        shards = {name: open_shard(path.parent / name) for name in names}
        self.container = f"{len(shards)} files of {shards[names[0]].container}"
        self.notes = tuple(dict.fromkeys(note for shard in shards.values() for note in shard.notes))
        self._shards = {key: shards[name] for key, name in owners.items()}
        lost = [key for key, shard in self._shards.items() if key not in shard.entries]
        if lost:
            raise self._wrong(f"its files do not hold {shown(lost)}; is a file of another model among them?")
        extra = [key for name, shard in shards.items() for key in shard.entries if owners.get(key) != name]
        if extra:
            raise self._wrong(f"its files hold {shown(extra)}, of which it says nothing; is it of another model?")
        self.entries: Mapping[str, TensorInfo] = {key: shard.entries[key] for key, shard in self._shards.items()}

    def read(self, key: str) -> Tensor:
        """Return a tensor of the file that holds it."""
        return self._shards[key].read(key)

    def release(self, key: str) -> None:
        """Give back the memory of a tensor of the file that holds it."""
        self._shards[key].release(key)

    def check(self, keys: Iterable[str]) -> None:
        """Check the tensors in their files."""
        groups: dict[int, list[str]] = {}
        for key in keys:
            groups.setdefault(id(self._shards[key]), []).append(key)
        for group in groups.values():
            self._shards[group[0]].check(group)

    def _wrong(self, why: str) -> CheckpointError:
        return _wrong(self.path, why)


def read_index(path: Path) -> dict[str, str]:
    """Return the file of each tensor that an index lists.

    Raises:
        CheckpointError: it is no such index, or names a file elsewhere.
    """
    try:
        weight_map: Any = read_json(path, BOUNDS).data.get("weight_map")
    except ConfigError as error:
        first = error.problems[0]
        raise _wrong(path, f"line {first.line}: {first.message}" if first.line else first.message) from None
    if not isinstance(weight_map, dict) or not weight_map:
        raise _wrong(path, "it has no 'weight_map' from tensors to files")
    owners = cast("dict[str, Any]", weight_map)
    if len(owners) > MAX_TENSORS:
        raise _wrong(path, f"it lists {len(owners)} tensors; allowed: {MAX_TENSORS}")
    for name in owners.values():
        if not isinstance(name, str) or not name or name in (".", "..") or set(name) & set("/\\\0"):
            raise _wrong(path, f"it names the file {describe(name)}; allowed: names of files beside it")
    return owners


def _wrong(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path} is no index of weights that can be used: {why}")
