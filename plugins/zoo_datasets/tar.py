"""Tar shards by index: each member is read from its place."""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Any

from zoo_core.errors import SampleError
from zoo_datasets.config import TarConfig
from zoo_datasets.files import find_files
from zoo_datasets.members import MemberDataset
from zoo_datasets.tar_index import index_of

__all__ = ["TarDataset"]

OPEN_FILES = 256
"""Shards that a process holds open: systems allow about a thousand files."""


class TarDataset(MemberDataset):
    """Pairs in tar shards, in webdataset's form."""

    def __init__(self, config: TarConfig) -> None:
        shards = find_files(config.path)
        super().__init__(config, [(str(shard), index_of(shard)) for shard in shards])
        self._files: OrderedDict[int, int] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_files": OrderedDict()}

    def __del__(self) -> None:
        for descriptor in vars(self).get("_files", {}).values():
            os.close(descriptor)

    def _content(self, block: int, key: str, ending: str, offset: int, size: int) -> bytes:
        content = _read(self._descriptor(block), size, offset)
        if len(content) < size:
            raise SampleError(f"its {ending} is cut off; the shard has changed since it was opened")
        return content

    def _descriptor(self, block: int) -> int:
        if block in self._files:
            self._files.move_to_end(block)
            return self._files[block]
        if len(self._files) >= OPEN_FILES:
            os.close(self._files.popitem(last=False)[1])
        try:
            self._files[block] = os.open(self._names[block], os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise SampleError(f"the shard cannot be opened: {error.strerror or error}") from error
        return self._files[block]


def _read(descriptor: int, size: int, offset: int) -> bytes:
    """Return bytes of a file from a place; its own position does not count, since workers share it."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)  # Windows, where workers share no files
    return os.read(descriptor, size)
