"""Weights in several files: an index in JSON says which file holds which tensor.

The names of files are names only: an index that reaches outside its folder is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from zoo_core.checkpoints import TensorInfo, TensorSource, shown
from zoo_core.containers.safetensors import MAX_HEADER, MAX_TENSORS
from zoo_core.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MAX_SHARDS", "ShardedSource"]

MAX_SHARDS = 1000


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
        owners = self._index()
        names = list(dict.fromkeys(owners.values()))
        if len(names) > MAX_SHARDS:
            raise self._wrong(f"it names {len(names)} files; allowed: {MAX_SHARDS}")
        shards = {name: open_shard(path.parent / name) for name in names}
        self.container = f"{len(shards)} files of {next(iter(shards.values())).container}" if shards else "no files"
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

    def _index(self) -> dict[str, str]:
        try:
            if self.path.stat().st_size > MAX_HEADER:
                raise self._wrong(f"it is longer than any model's; allowed: {MAX_HEADER} bytes")
            index = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise self._wrong(f"it is no JSON: {error}") from None
        found: Any = cast("dict[str, Any]", index).get("weight_map") if isinstance(index, dict) else None
        if not isinstance(found, dict) or not found:
            raise self._wrong("it has no 'weight_map' from tensors to files")
        owners = cast("dict[str, Any]", found)
        if len(owners) > MAX_TENSORS:
            raise self._wrong(f"it lists {len(owners)} tensors; allowed: {MAX_TENSORS}")
        for name in owners.values():
            if (
                not isinstance(name, str)
                or not name
                or name in (".", "..")
                or "/" in name
                or "\\" in name
                or "\0" in name
            ):
                raise self._wrong(f"it names the file {name!r}; allowed: names of files beside it")
        return owners

    def _wrong(self, why: str) -> CheckpointError:
        return CheckpointError(f"{self.path} is no index of weights that can be used: {why}")
