"""A folder of image files with captions beside them."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import pyarrow as pa

from zoo_core.errors import DataError
from zoo_datasets.config import FolderConfig
from zoo_datasets.files import find_files, near_names
from zoo_datasets.members import MemberDataset

__all__ = ["FolderDataset"]


class FolderDataset(MemberDataset):
    """Pairs of files: `a/b.jpg` with `a/b.txt`, or with a key of `a/b.json`."""

    def __init__(self, config: FolderConfig) -> None:
        folders = find_files(config.path)
        super().__init__(config, [(str(folder), _members(folder)) for folder in folders])

    def blocks(self) -> None:
        """Return nothing: all files are as near."""

    def location(self, index: int) -> str:
        """Return the path of a sample without its ending."""
        return super().location(index).replace("#", os.sep, 1)

    def _content(self, block: int, key: str, ending: str, offset: int, size: int) -> Path:
        folder, name = Path(self._names[block]), f"{key}.{ending}"
        path = folder / name
        if path.exists():
            return path
        beside = path.parent.glob(f"{glob.escape(path.stem)}.*")  # its ending has upper case
        return next((file for file in beside if file.suffix.lower() == path.suffix), path)


def _members(folder: Path) -> pa.Table:
    """Return the files below a folder, as the members of a shard are; they lie nowhere, so their offset is 0.

    Raises:
        DataError: it is no folder, or one within cannot be listed.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder{near_names(str(folder))}")

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be listed: {error.strerror or error}") from error

    rows: list[tuple[str, str, int]] = []
    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        folders.sort()
        for name in sorted(names):
            key, dot, ending = name.rpartition(".")
            if key and dot and not name.startswith("."):
                path = Path(parent) / name
                rows.append(((path.relative_to(folder).parent / key).as_posix(), ending.lower(), path.stat().st_size))
    if not rows:
        raise DataError(f"{folder} holds no file")
    keys, endings, sizes = zip(*rows, strict=True)
    columns = {"key": keys, "ending": endings, "offset": [0] * len(rows), "size": sizes}
    return pa.table({name: pa.array(values) for name, values in columns.items()})
