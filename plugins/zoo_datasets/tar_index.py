"""Index of a tar shard: where each member lies.

Reading the headers of a shard takes as many seeks as it has members, so they are read once. The index is kept beside
the shard, or in the user's cache where that folder cannot be written, and holds for the size and time of the shard.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from zoo_core.errors import DataError, SaveError
from zoo_core.files.atomic import atomic_write
from zoo_core.files.user_folders import user_cache_folder

__all__ = ["index_of", "index_paths", "member_parts"]

VERSION = 1
_METADATA = b"zoo"
_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZ": "bunzip2", b"\xfd7": "unxz", b"(\xb5": "unzstd"}


def index_of(shard: Path, *, again: bool = False) -> pa.Table:
    """Return the members of a shard: columns key, ending, offset and size.

    Args:
        shard: a tar file.
        again: read it even where an index is there.

    Raises:
        DataError: it cannot be read, is truncated or holds no file.
    """
    try:
        status = shard.stat()
    except OSError as error:
        raise DataError(f"{shard}: cannot be opened: {error.strerror or error}") from error
    state = {"version": VERSION, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    paths = index_paths(shard)
    for path in () if again else paths:
        index = _read(path, state)
        if index is not None:
            return index
    index = _indexed(shard).replace_schema_metadata({_METADATA: json.dumps(state)})
    for path in paths:
        with suppress(SaveError), atomic_write(path) as (file,):
            pq.write_table(index, file)
            break
    return index


def index_paths(shard: Path) -> tuple[Path, Path]:
    """Return where the index of a shard may be: beside it, and in the user's cache."""
    name = hashlib.sha256(str(shard.absolute()).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return shard.with_name(f"{shard.name}.index.parquet"), user_cache_folder() / "tar-index" / f"{name}.parquet"


def member_parts(name: str) -> tuple[str, str] | None:
    """Return what a member's sample is called and how it ends; None for what belongs to no sample."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    key, dot, ending = base.partition(".")
    if not (dot and key and ending):
        return None
    return folder + slash + key, ending.lower()


def _read(path: Path, state: dict[str, Any]) -> pa.Table | None:
    """Return an index that was made of a shard as it is now."""
    try:
        index = pq.read_table(path, memory_map=False)
        is_current = json.loads((index.schema.metadata or {})[_METADATA]) == state
    except (OSError, KeyError, ValueError, pa.ArrowInvalid):  # none there, half of one, or another file
        return None
    return index if is_current else None


def _indexed(shard: Path) -> pa.Table:
    keys: list[str] = []
    endings: list[str] = []
    extents: list[tuple[int, int]] = []
    try:
        with shard.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                parts = member_parts(member.name) if member.isreg() else None
                if parts is not None:
                    keys.append(parts[0])
                    endings.append(parts[1])
                    extents.append((member.offset_data, member.size))
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue] - else all stay in memory
            end = archive.offset
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise DataError(f"{shard}: {_fault(shard, error)}") from error
    except OSError as error:
        raise DataError(f"{shard}: cannot be read: {error.strerror or error}") from error
    _check_end(shard, end)
    if not keys:
        raise DataError(f"{shard}: holds no sample")
    offsets, sizes = zip(*extents, strict=True)
    return pa.table(
        {
            "key": pa.array(keys, pa.string()),
            "ending": pa.array(endings, pa.string()).dictionary_encode(),
            "offset": pa.array(offsets, pa.int64()),
            "size": pa.array(sizes, pa.int64()),
        }
    )


def _check_end(shard: Path, offset: int) -> None:
    """Hold a shard to the block of zeros that ends each tar file."""
    with shard.open("rb") as file:
        file.seek(max(0, offset - tarfile.BLOCKSIZE))
        blocks = file.read(2 * tarfile.BLOCKSIZE)
    if bytes(tarfile.BLOCKSIZE) not in (blocks[: tarfile.BLOCKSIZE], blocks[tarfile.BLOCKSIZE :]):
        raise DataError(f"{shard}: is truncated: it ends without the mark of its end; fetch or pack it again")


def _fault(shard: Path, error: Exception) -> str:
    with shard.open("rb") as file:
        head = file.read(2)
    if not head:
        return "is an empty file, no tar file"
    tool = _COMPRESSED.get(head)
    if tool is not None:
        return f"is compressed, and members are read by their place; unpack it with {tool}"
    if "end of data" in str(error) or "truncated" in str(error):
        return "is truncated: it ends within a member; fetch or pack it again"
    return f"is no tar file: {error}"
