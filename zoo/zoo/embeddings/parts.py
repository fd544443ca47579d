"""The Parquet files of a set of embeddings.

Vectors are in `part-N.parquet`, failures in `errors-N.parquet`. No vector is null, which pyarrow before 26 could not
read. Sets of format 1 have vectors and failures in one file, with a vector or an error that is null; such files are
read, and written anew in this format when one of their rows changes.

The checksums of Parquet cover pages, not the footer, which states how many rows there are. A digest of the rows covers
both; files of 0.1.0 lack it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from zoo.embeddings.manifest import SetManifest, differences
from zoo.embeddings.writers import parquet_modules
from zoo_core.errors import InputError, ZooError, describe, reason
from zoo_core.files.atomic import atomic_write

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

__all__ = ["PART_NAME", "Failure", "Part", "part_numbers", "read_part", "write_part"]

PART_NAME = re.compile(r"(?:part|errors)-(\d{8,})\.parquet")
READS_NULL_VECTORS = 26
"""The first version of pyarrow that reads a file of format 1 with a failure in it (apache/arrow#35692)."""
DIGEST = b"zoo.rows_sha256"
"""Where the metadata of a file holds the digest of its rows."""
REMEDY = "remove it, and its rows are embedded again"

Taken = TypeVar("Taken")


class Failure(NamedTuple):
    """An input that has no vector.

    Attributes:
        id: the path of an image.
        kind: `missing` or `unreadable` is the file, `invalid` what it holds.
        reason: the error in a sentence.
        attempts: how often it was tried.
    """

    id: str
    kind: str
    reason: str
    attempts: int


@dataclass
class Part:
    """What was written at one time.

    Attributes:
        ids: paths or captions that have a vector.
        vectors: float32 `[N, width]`.
        sizes: bytes of each file when it was embedded; None for captions, and in files of format 1.
        times: when each was changed last, in nanoseconds; None likewise.
        failures: inputs that have none.
        written: when the part was written, in nanoseconds; 0 is now.
        is_old: it is of format 1.
    """

    ids: list[str]
    vectors: NDArray[float32]
    sizes: list[int | None]
    times: list[int | None]
    failures: list[Failure] = field(default_factory=list[Failure])
    written: int = 0
    is_old: bool = False

    def without(self, ids: set[str]) -> Part:
        """Return the part without some ids."""
        stays = [name not in ids for name in self.ids]
        return Part(
            list(compress(self.ids, stays)),
            self.vectors[stays],
            list(compress(self.sizes, stays)),
            list(compress(self.times, stays)),
            [failure for failure in self.failures if failure.id not in ids],
            self.written,
        )


def part_numbers(folder: Path) -> list[int]:
    """Return the numbers of the parts of a set, in order. Where two hold an id, the later one counts.

    Raises:
        InputError: a Parquet file is called as no part is.
    """
    numbers: set[int] = set()
    for path in folder.glob("*.parquet"):
        match = PART_NAME.fullmatch(path.name)
        if match is None:
            raise InputError(f"{path} is no part of the set, which are called as part-00000000.parquet; move it away")
        numbers.add(int(match[1]))
    return sorted(numbers)


def read_part(folder: Path, number: int, manifest: SetManifest) -> Part:
    """Read the files of one number; every checksum is compared.

    Raises:
        InputError: one is damaged, is no part of this set, or went away.
        MissingDependencyError: pyarrow is not installed.
    """
    import numpy as np

    part = Part([], np.empty((0, manifest.width), np.float32), [], [])
    path = _vectors_file(folder, number)
    if path.exists():
        part = _read(path, manifest, _vectors)
    path = _failures_file(folder, number)
    if path.exists():
        # of a file of format 1 that was about to be replaced they stand in both
        failures = {failure.id: failure for failure in (*part.failures, *_read(path, manifest, _failures))}
        part.failures = list(failures.values())
    both = set(part.ids).intersection(failure.id for failure in part.failures)
    if both:
        raise InputError(f"{path} names {describe(min(both))} as a failure, which has a vector beside it; {REMEDY}")
    return part


def write_part(folder: Path, number: int, part: Part, identity: Mapping[str, str]) -> None:
    """Write the files of one number; one that would be empty is removed.

    Raises:
        SaveError: a file cannot be written; what stood there before still does.
    """
    arrow, _ = parquet_modules()
    rows = [list(column) for column in zip(*part.failures, strict=True)]
    _write(_failures_file(folder, number), _failure_columns(arrow), rows, part.written, identity)
    columns = _vector_columns(arrow, part.vectors.shape[1])
    vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(part.vectors.reshape(-1)), type=columns[1].type)
    rows = [part.ids, vectors, part.sizes, part.times] if part.ids else []
    _write(_vectors_file(folder, number), columns, rows, part.written, identity)


def _vectors_file(folder: Path, number: int) -> Path:
    return folder / f"part-{number:08}.parquet"


def _failures_file(folder: Path, number: int) -> Path:
    return folder / f"errors-{number:08}.parquet"


def _vector_columns(arrow: Any, width: int) -> list[Any]:
    vector = arrow.list_(arrow.field("element", arrow.float32(), nullable=False), width)
    return [
        arrow.field("id", arrow.string(), nullable=False),
        arrow.field("vector", vector, nullable=False),
        arrow.field("bytes", arrow.int64()),
        arrow.field("mtime_ns", arrow.int64()),
    ]


def _failure_columns(arrow: Any) -> list[Any]:
    kinds = {"id": arrow.string(), "kind": arrow.string(), "reason": arrow.string(), "attempts": arrow.int32()}
    return [arrow.field(name, kind, nullable=False) for name, kind in kinds.items()]


def _old_columns(arrow: Any, width: int) -> list[Any]:
    vector = arrow.list_(arrow.float32(), width)
    kinds = {"id": arrow.string(), "path": arrow.string(), "vector": vector, "error": arrow.string()}
    return [arrow.field(name, kind) for name, kind in kinds.items()]


def _write(path: Path, columns: list[Any], rows: Sequence[Any], written: int, identity: Mapping[str, str]) -> None:
    arrow, parquet = parquet_modules()
    with atomic_write(path) as (scratch,):
        if not rows:
            path.unlink(missing_ok=True)
            return
        arrays = [arrow.array(values, kind.type) for values, kind in zip(rows, columns, strict=True)]
        table = arrow.Table.from_arrays(arrays, schema=arrow.schema(columns))
        table = table.replace_schema_metadata({**identity, DIGEST: _digest(table)})
        parquet.write_table(table, scratch, write_page_checksum=True, use_dictionary=False)
        if written:
            os.utime(scratch, ns=(written, written))


def _read(path: Path, manifest: SetManifest, take: Callable[[Any, Path, SetManifest], Taken]) -> Taken:
    _, parquet = parquet_modules()
    if path.exists() and not path.is_file():  # pyarrow waits for whoever writes to a pipe
        raise InputError(f"{path} is not a regular file; {REMEDY}")
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            stored: dict[bytes, bytes] = file.schema_arrow.metadata or {}
            metadata = {key.decode(): text.decode() for key, text in stored.items() if key != DIGEST}
            facts = differences(metadata, manifest.identity, path)
            if facts:
                raise InputError(f"{path} is of another set: {facts}; move it away")
            return take(file, path, manifest)
    except FileNotFoundError:
        raise InputError(
            f"{path} went away while the set was read: another process adds to it; read it again"
        ) from None
    except (ZooError, MemoryError):
        raise
    except Exception as error:  # whatever pyarrow raises for a damaged file
        if isinstance(error, OSError) and error.errno:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        raise InputError(f"{path} is damaged: {reason(error)}; {REMEDY}") from error


def _vectors(file: Any, path: Path, manifest: SetManifest) -> Part:
    import numpy as np

    arrow, _ = parquet_modules()
    is_old = "error" in file.schema_arrow.names
    columns = (_old_columns if is_old else _vector_columns)(arrow, manifest.width)
    _check_columns(file, path, columns)
    errors: list[str | None] = []
    if is_old:
        errors = file.read(columns=["error"]).column("error").to_pylist()
        if any(errors) and int(arrow.__version__.split(".")[0]) < READS_NULL_VECTORS:
            raise InputError(
                f"{path} has a failure among its vectors, which pyarrow {arrow.__version__} cannot read; pip install "
                f"'pyarrow>={READS_NULL_VECTORS}' and embed into the set once, then every version can"
            )
    table = _rows(file)
    ids: list[str] = _values(table, "id")
    vector = table.column("vector")
    if vector.null_count != len(ids) - errors.count(None) if is_old else vector.null_count:
        raise ValueError("a row has no vector")
    rows = np.concatenate([chunk.flatten().to_numpy() for chunk in vector.chunks]).reshape(-1, manifest.width)
    written = path.stat().st_mtime_ns
    if not is_old:
        sizes, times = (table.column(name).to_pylist() for name in ("bytes", "mtime_ns"))
        return Part(ids, rows, sizes, times, written=written)
    outcomes = list(zip(ids, errors, strict=True))
    failures = [Failure(name, "invalid", error, 1) for name, error in outcomes if error is not None]
    ids = [name for name, error in outcomes if error is None]
    unknown: list[int | None] = [None] * len(ids)
    return Part(ids, rows, unknown, unknown, failures, written, is_old=True)


def _failures(file: Any, path: Path, manifest: SetManifest) -> list[Failure]:
    arrow, _ = parquet_modules()
    columns = _failure_columns(arrow)
    _check_columns(file, path, columns)
    table = _rows(file)
    if not _values(table, "id"):  # no such file is written
        raise ValueError("it holds no row")
    return [Failure(*row) for row in zip(*(table.column(column.name).to_pylist() for column in columns), strict=True)]


def _rows(file: Any) -> Any:
    """Read the rows of a file, and compare them with their digest where the file has one."""
    table = file.read()
    metadata: dict[bytes, bytes] = table.schema.metadata or {}
    digest = metadata.get(DIGEST)
    if digest is not None and digest.decode() != _digest(table):
        raise ValueError("its rows are not those that were written")
    return table


def _digest(table: Any) -> str:
    """Return the SHA-256 of the columns, however the rows are cut into chunks."""
    arrow, _ = parquet_modules()
    digest = hashlib.sha256()
    for column in table.columns:
        if arrow.types.is_fixed_size_list(column.type):
            for chunk in column.chunks:
                digest.update(chunk.flatten().to_numpy())
        else:
            digest.update(json.dumps(column.to_pylist()).encode())
    return digest.hexdigest()


def _check_columns(file: Any, path: Path, columns: list[Any]) -> None:
    actual, expected = _names_and_types(file.schema_arrow), _names_and_types(columns)
    if actual != expected:
        raise InputError(f"{path} has the columns {actual}, expected {expected}; {REMEDY}")


def _names_and_types(columns: Any) -> str:
    """Return names and types; what a list calls its elements depends on who wrote it, and does not matter."""
    arrow, _ = parquet_modules()

    def kind(of: Any) -> str:
        return f"{of.value_type}[{of.list_size}]" if arrow.types.is_fixed_size_list(of) else str(of)

    return ", ".join(f"{column.name} {kind(column.type)}" for column in columns)


def _values(table: Any, name: str) -> list[str]:
    values: list[str | None] = table.column(name).to_pylist()
    if None in values or len(set(values)) < len(values):
        raise ValueError(f"an {name} is null or stands there twice")
    return values  # type: ignore[return-value]
