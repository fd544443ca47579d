"""Rows of Arrow tables, in memory or decoded from Parquet."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zoo_core.errors import DataError

__all__ = ["ParquetRows", "Rows", "TableRows", "is_list", "is_string"]

GROUPS_IN_MEMORY = 4
"""Row groups that a process keeps decoded."""


class Rows(ABC):
    """Rows of one file.

    Attributes:
        path: the file.
        columns: the names of its columns.
        count: the number of its rows.
    """

    path: Path
    columns: Sequence[str]
    count: int

    @abstractmethod
    def column(self, name: str) -> pa.ChunkedArray:
        """Return all values of a column."""

    @abstractmethod
    def value(self, name: str, row: int) -> Any:
        """Return one value, as Python has it."""

    @abstractmethod
    def is_heavy(self, name: str) -> bool:
        """Tell whether a column holds whole files, which are not to be in memory."""

    def groups(self) -> list[int] | None:
        """Return how many rows are decoded at once, group after group; None where each is had by itself."""
        return None


class TableRows(Rows):
    """Rows of a table that is in memory, or mapped there."""

    def __init__(self, path: Path, table: pa.Table) -> None:
        self.path, self._table = path, table
        self.columns, self.count = table.column_names, table.num_rows

    def column(self, name: str) -> pa.ChunkedArray:
        """Return all values of a column."""
        return self._table.column(name)

    def value(self, name: str, row: int) -> Any:
        """Return one value."""
        return self._table.column(name)[row].as_py()

    def is_heavy(self, name: str) -> bool:
        """Tell whether a column holds whole files."""
        return is_binary(self._table.schema.field(name).type)


class ParquetRows(Rows):
    """Rows of a Parquet file with whole files in it."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self.path = path
        schema, metadata = _parquet(path).schema_arrow, _parquet(path).metadata
        self.columns, self.count = schema.names, metadata.num_rows
        self._types = {name: schema.field(name).type for name in schema.names}
        self._names = [name for name in names if name in self._types]
        self._lengths = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        self._ends = np.cumsum(self._lengths)
        self._decoded: OrderedDict[int, pa.Table] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_decoded": OrderedDict()}

    def column(self, name: str) -> pa.ChunkedArray:
        """Return all values of a column."""
        return _parquet(self.path).read([name], use_threads=False).column(name)

    def value(self, name: str, row: int) -> Any:
        """Return one value; its row group is decoded, and kept for the rows that follow."""
        group = int(np.searchsorted(self._ends, row, side="right"))
        if group not in self._decoded:
            self._decoded[group] = _parquet(self.path).read_row_group(group, self._names, use_threads=False)
            if len(self._decoded) > GROUPS_IN_MEMORY:
                self._decoded.popitem(last=False)
        return self._decoded[group].column(name)[row - int(self._ends[group]) + self._lengths[group]].as_py()

    def is_heavy(self, name: str) -> bool:
        """Tell whether a column holds whole files."""
        return is_binary(self._types[name])

    def groups(self) -> list[int]:
        """Return the rows of each row group."""
        return self._lengths


def is_string(kind: pa.DataType) -> bool:
    """Tell whether a column holds texts."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def is_list(kind: pa.DataType) -> bool:
    """Tell whether a column holds lists."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def is_binary(kind: pa.DataType) -> bool:
    """Tell whether a column holds the bytes of files, by themselves or in lists or structures."""
    if pa.types.is_struct(kind):
        return any(is_binary(field.type) for field in kind)
    if is_list(kind):
        return is_binary(kind.value_type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _parquet(path: Path) -> pq.ParquetFile:
    """Return an open Parquet file.

    Raises:
        DataError: it is none, or damaged.
    """
    try:
        return pq.ParquetFile(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: is no whole Parquet file: {error}") from error
