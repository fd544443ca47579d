"""Files of embeddings, written row by row.

Rows go to a file beside the final name, which is renamed at the end. A file of the final name is therefore always
whole, and a million embeddings need no more memory than a batch.
"""

from __future__ import annotations

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_core.errors import InputError, MissingDependencyError, SaveError, one_of
from zoo_core.files.atomic import atomic_write

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

__all__ = ["FORMATS", "Writer", "check_ids", "check_output", "ids_file", "model_file", "parquet_modules", "writer"]

FORMATS = (".npy", ".parquet")


def check_output(path: Path, *, force: bool = False) -> None:
    """Refuse an output that could not be written, before any work is done for it.

    Args:
        path: a file, or a folder for a set.
        force: files that are there are replaced.

    Raises:
        InputError: its extension stands for no format, it is there already, or `force` is given for a folder.
        MissingDependencyError: the format needs a package that is not installed.
        SaveError: it is a folder.
    """
    if path.suffix and path.suffix not in FORMATS:
        raise InputError(f"{path}: unknown extension '{path.suffix}'; {one_of(FORMATS)}, or none for a folder")
    if path.suffix and path.is_dir():
        raise SaveError(f"{path} is a folder; name a file, or a folder without an extension")
    if force and not path.suffix:
        raise InputError(f"--force replaces a file, and {path} is a folder, to which embeddings are added")
    for target in _targets(path) if path.suffix and not force else ():
        if target.exists():
            raise InputError(f"{target} is there already; give --force to replace it")
    if path.suffix != ".npy":
        parquet_modules()


def check_ids(path: Path, ids: Iterable[str]) -> None:
    """Refuse ids that the file cannot hold: with an array they stand one a line.

    Raises:
        InputError: one has a line break in it.
    """
    broken = next((name for name in ids if "\n" in name or "\r" in name), None) if path.suffix == ".npy" else None
    if broken is not None:
        raise InputError(
            f"{broken!r} has a line break in it, and {ids_file(path)} holds an id a line; write a .parquet file or a "
            "folder, or rename it"
        )


class Writer(ABC):
    """Takes batches of ids and rows.

    Attributes:
        count: rows that were added.
        refused: inputs that have none.
        kept: inputs that have a row from before.
        changed: inputs that had one, of another file under the same name.
        gone: those of `kept` whose file is not there any more.
        failed_before: inputs of other runs that have none.
    """

    def __init__(self) -> None:
        self.count = 0
        self.refused = 0
        self.kept = 0
        self.changed = 0
        self.gone = 0
        self.failed_before = 0

    def remaining(self, items: Sequence[str]) -> list[str]:
        """Return those of the inputs that are to be embedded."""
        return list(items)

    def add(self, ids: Sequence[str], rows: NDArray[float32]) -> None:
        """Append `rows` `[B, D]`, one for each id."""
        self._write(ids, rows)
        self.count += len(ids)

    def refuse(self, name: str, error: Exception) -> None:
        """Take note of an input that has no embedding, and why."""
        self.refused += 1

    @abstractmethod
    def _write(self, ids: Sequence[str], rows: NDArray[float32]) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """Finish the file."""


def ids_file(array: Path) -> Path:
    """Return the file of the ids of a `.npy` file: `vectors.npy` has `vectors.ids.txt`."""
    return array.with_suffix(".ids.txt")


def model_file(array: Path) -> Path:
    """Return the file of the model of a `.npy` file: `vectors.npy` has `vectors.model.json`."""
    return array.with_suffix(".model.json")


@contextmanager
def writer(path: Path, width: int, metadata: dict[str, str]) -> Generator[Writer]:
    """Open a file of embeddings. It takes its name when the block ends well and it holds a row, not before.

    Args:
        path: ends in `.npy` (a float32 array `[N, width]`; the ids stand beside it, one a line, and the metadata) or
            in `.parquet` (columns `id` and `embedding`).
        width: of an embedding.
        metadata: whose embeddings they are.

    Raises:
        SaveError: it cannot be written; what stood there before still does.
    """
    with atomic_write(*_targets(path)) as scratch:
        if len(scratch) == 1:
            rows: Writer = _ParquetWriter(scratch[0], width, metadata)
        else:
            ids, model, array = scratch
            model.write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
            rows = _NpyWriter(path, ids, array, width)
        try:
            yield rows
        finally:
            rows.close()
        if not rows.count:
            for file in scratch:
                file.unlink()


def _targets(path: Path) -> list[Path]:
    return [ids_file(path), model_file(path), path] if path.suffix == ".npy" else [path]


class _NpyWriter(Writer):
    """Rows follow the header as they come; numpy leaves room in it for the final count."""

    def __init__(self, path: Path, ids: Path, array: Path, width: int) -> None:
        super().__init__()
        self._path = path
        self._width = width
        self._array = array.open("wb")
        self._ids = ids.open("w", encoding="utf-8", newline="\n")
        self._header()

    def _write(self, ids: Sequence[str], rows: NDArray[float32]) -> None:
        check_ids(self._path, ids)
        self._array.write(rows.astype("<f4").tobytes())
        self._ids.writelines(f"{name}\n" for name in ids)

    def close(self) -> None:
        self._array.seek(0)
        self._header()
        for file in (self._array, self._ids):
            file.close()

    def _header(self) -> None:
        from numpy.lib import format as npy

        header = {"descr": "<f4", "fortran_order": False, "shape": (self.count, self._width)}
        npy.write_array_header_1_0(self._array, header)


class _ParquetWriter(Writer):
    def __init__(self, path: Path, width: int, metadata: dict[str, str]) -> None:
        super().__init__()
        arrow, parquet = parquet_modules()
        self._arrow = arrow
        self._schema = arrow.schema(
            [("id", arrow.string()), ("embedding", arrow.list_(arrow.float32(), width))], metadata=metadata
        )
        self._file = parquet.ParquetWriter(path, self._schema, write_page_checksum=True)

    def _write(self, ids: Sequence[str], rows: NDArray[float32]) -> None:
        values = self._arrow.FixedSizeListArray.from_arrays(self._arrow.array(rows.reshape(-1)), rows.shape[1])
        columns = [self._arrow.array(ids, self._arrow.string()), values]
        self._file.write_table(self._arrow.Table.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        self._file.close()


def parquet_modules() -> tuple[Any, Any]:
    """Return `pyarrow` and `pyarrow.parquet`.

    Raises:
        MissingDependencyError: they are not installed.
    """
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise MissingDependencyError(
            "Parquet files need pyarrow, which is not installed; run: pip install 'clip-zoo[parquet]'"
        ) from None
