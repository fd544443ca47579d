"""Samples that are rows of tables."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zoo_core.errors import DataError, SampleError, describe, did_you_mean
from zoo_core.registry import default_registry
from zoo_core.training import Dataset, Sample
from zoo_datasets.config import ColumnsConfig
from zoo_datasets.rows import Rows, is_list, is_string

__all__ = ["ColumnDataset", "wanted_columns"]


_NOTHING = ("", "nan")


class ColumnDataset(Dataset):
    """Takes samples from rows of files.

    Args:
        config: which columns belong to which modality.
        files: the rows.
    """

    def __init__(self, config: ColumnsConfig, files: Sequence[Rows]) -> None:
        self.config, self._files = config, files
        self.has_ids, self.has_weights = config.id is not None, config.sample_weight is not None
        self._is_text = {name: not default_registry().modality(name).files for name in config.inputs}
        for file in files:
            self._check_columns(file)
        self._complete = self._whole()
        self._ends = np.cumsum([len(rows) for rows in self._complete])
        self._weights = [self._weights_of(file) for file in files]
        if not len(self):
            raise DataError(f"{files[0].path}: has no row")

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Sample:
        """Return the sample of a row."""
        number, row = self._row(index)
        file = self._files[number]
        try:
            inputs = {
                name: [
                    entry
                    for column in columns
                    for entry in self._entries(file, file.value(column, row), self._is_text[name])
                ]
                for name, columns in self.config.inputs.items()
            }
        except SampleError as error:
            raise SampleError(f"{self.location(index)}: {error}") from None
        identity = None if self.config.id is None else file.value(self.config.id, row)
        if self.config.id is not None and _is_missing(identity):
            raise SampleError(f"{self.location(index)}: has no {self.config.id}")
        weights = self._weights[number]
        weight = 1.0 if weights is None else float(weights[row])
        return Sample(inputs, None if identity is None else str(identity), weight)

    def location(self, index: int) -> str:
        """Return file and row of a sample; rows count from 1, without the names of the columns."""
        number, row = self._row(index)
        return f"{self._files[number].path}: row {row + 1}"

    def blocks(self) -> list[int] | None:
        """Return how many samples are decoded at once."""
        if all(file.groups() is None for file in self._files):
            return None
        blocks: list[int] = []
        for file, rows in zip(self._files, self._complete, strict=True):
            edges = np.cumsum([0, *(file.groups() or [file.count])])
            blocks += np.diff(np.searchsorted(rows, edges)).tolist()
        return [length for length in blocks if length]

    def variants(self) -> list[int] | None:
        """Return how many inputs each sample has at most."""
        counts = np.ones(len(self), np.int64)
        for name, columns in self.config.inputs.items():
            lengths = [self._lengths(column, self._is_text[name]) for column in columns]
            counts = np.maximum(counts, np.sum(lengths, axis=0))
        return counts.tolist() if counts.max() > 1 else None

    def digest(self) -> str:
        """Return a hash of the config and of the files."""
        keys = ("inputs", "id", "sample_weight", "root", "missing", "choose")
        digest = hashlib.sha256(json.dumps([getattr(self.config, key) for key in keys]).encode())
        for file in self._files:
            digest.update(f"{file.path.name}\0{file.path.stat().st_size}\0".encode("utf-8", "surrogateescape"))
            digest.update(_fingerprint(file.path))
        return digest.hexdigest()

    def _lengths(self, column: str, is_text: bool) -> NDArray[np.int64]:
        """Return how many inputs each sample has in a column."""
        lengths: list[int] = []
        for file, rows in zip(self._files, self._complete, strict=True):
            if file.is_heavy(column):
                lengths += [1] * len(rows)
            else:
                values = file.column(column).take(pa.array(rows)).to_pylist()
                lengths += [len(self._counted(value, is_text)) for value in values]
        return np.asarray(lengths, np.int64)

    def _row(self, index: int) -> tuple[int, int]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        rows = self._complete[number]
        return number, int(rows[index - int(self._ends[number]) + len(rows)])

    def _entries(self, file: Rows, value: Any, is_text: bool) -> Iterator[Any]:
        """Yield the inputs that a value holds."""
        for entry in self._counted(value, is_text):
            content = entry.get("bytes") or entry.get("path") if isinstance(entry, dict) else entry
            if is_text or isinstance(content, bytes):
                yield content
            elif isinstance(content, str):
                yield str((Path(self.config.root) if self.config.root is not None else file.path.parent) / content)
            else:
                raise SampleError(f"expected a path or the bytes of a file, found {describe(content)}")

    def _counted(self, value: Any, is_text: bool) -> list[Any]:
        """Return the entries of a value that are not missing."""
        entries = value if isinstance(value, list) else _from_json(value) if is_text else [value]
        return [entry for entry in entries if not _is_missing(entry)]

    def _check_columns(self, file: Rows) -> None:
        for column in wanted_columns(self.config):
            if column not in file.columns:
                has_tabs = any("\t" in name for name in file.columns)
                hint = '; it has tabs: separator: "\\t"' if has_tabs else did_you_mean(column, file.columns)
                raise DataError(f"{file.path}: has no column '{column}'{hint}")

    def _whole(self) -> list[NDArray[np.int64]]:
        """Return the rows of each file that have an input for each modality.

        Raises:
            DataError: others lack one, and are not to be left out.
        """
        complete: list[NDArray[np.int64]] = []
        lacking, first = 0, ""
        for file in self._files:
            whole = np.ones(file.count, bool)
            for name, columns in self.config.inputs.items():
                has = np.zeros(file.count, bool)
                for column in columns:
                    has |= file.is_heavy(column) or _present(file, column, self._is_text[name])
                if not first and not has.all():
                    first = f"{file.path}: row {int(np.argmin(has)) + 1} has no {name} ({', '.join(columns)})"
                whole &= has
            lacking += int((~whole).sum())
            complete.append(np.flatnonzero(whole))
        if lacking and self.config.missing == "refuse":
            total = sum(file.count for file in self._files)
            raise DataError(
                f"{first}; it is the first of {lacking:,} such among {total:,} rows. Add what is missing, or leave "
                "them out with missing: skip"
            )
        return complete

    def _weights_of(self, file: Rows) -> NDArray[np.float64] | None:
        """Return the weights of all rows.

        Raises:
            DataError: one is no number from 0.
        """
        column = self.config.sample_weight
        if column is None:
            return None
        weights = np.full(file.count, np.nan)
        for row, value in enumerate(file.column(column).to_pylist()):
            with suppress(TypeError, ValueError):
                weights[row] = float(value)
            if not (math.isfinite(weights[row]) and weights[row] >= 0):
                raise DataError(
                    f"{file.path}: row {row + 1} has the {column} {describe(value)}; expected a number from 0"
                )
        return weights


def wanted_columns(config: ColumnsConfig) -> list[str]:
    """Return the columns that a config names."""
    columns = [column for names in config.inputs.values() for column in names]
    return list(dict.fromkeys([*columns, *filter(None, (config.id, config.sample_weight))]))


def _present(file: Rows, column: str, is_text: bool) -> NDArray[np.bool_]:
    """Return which rows of a column hold something.

    Raises:
        DataError: it holds something else than texts.
    """
    values = file.column(column)
    kind = values.type
    if pa.types.is_null(kind):
        return np.zeros(file.count, bool)
    if is_string(kind):
        plain = pc.call_function("utf8_lower", [pc.call_function("utf8_trim_whitespace", [values])])
        lost = pc.call_function("is_in", [plain], pc.SetLookupOptions(value_set=pa.array(_NOTHING, kind)))
        return ~(lost.to_numpy() | values.is_null().to_numpy())
    if pa.types.is_struct(kind):
        return ~values.is_null().to_numpy()
    if not (is_list(kind) and is_string(kind.value_type)):
        expected = "texts, or lists of them" if is_text else "paths, or the bytes of files"
        raise DataError(f"{file.path}: column '{column}' holds {kind}, expected {expected}")
    present = (any(not _is_missing(entry) for entry in entries or ()) for entries in values.to_pylist())
    return np.fromiter(present, bool, file.count)


def _is_missing(value: Any) -> bool:
    """Tell what stands for no value: nothing, spaces, and `nan`, which pandas writes in its place."""
    return value is None or (isinstance(value, str) and value.strip().lower() in _NOTHING)


def _from_json(value: Any) -> list[Any]:
    """Return the entries of a list in JSON, or the value itself."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            entries = json.loads(value)
        except ValueError:
            return [value]
        if isinstance(entries, list) and all(isinstance(entry, str) for entry in entries):
            return entries
    return [value]


def _fingerprint(path: Path) -> bytes:
    """Return a hash of a file of text; of another one of its last MiB, where Parquet and Arrow say what they hold."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if path.suffix in (".parquet", ".arrow"):
            file.seek(max(0, path.stat().st_size - 2**20))
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.digest()
