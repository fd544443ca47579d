"""Data sets of Hugging Face on disk, Arrow or Parquet.

They are read with pyarrow, so the library datasets need not be there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from zoo_core.errors import DataError, one_of
from zoo_datasets.columns import ColumnDataset
from zoo_datasets.config import HuggingFaceConfig
from zoo_datasets.files import find_files, read_bytes
from zoo_datasets.rows import Rows, TableRows
from zoo_datasets.table import parquet_rows

__all__ = ["HuggingFaceDataset"]


class HuggingFaceDataset(ColumnDataset):
    """Rows of a saved data set."""

    def __init__(self, config: HuggingFaceConfig) -> None:
        super().__init__(config, [rows for folder in find_files(config.path) for rows in _rows(folder, config)])


def _rows(folder: Path, config: HuggingFaceConfig) -> Sequence[Rows]:
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder; single Parquet files are of type: table")
    if (folder / "dataset_dict.json").exists():
        splits: list[str] = _document(folder / "dataset_dict.json").get("splits", [])
        folder /= _split(folder, splits, config.split)
    if (folder / "state.json").exists():
        return _arrow_rows(folder)
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise DataError(f"{folder}: holds neither state.json, which save_to_disk writes, nor Parquet files")
    splits = sorted({file.stem.partition("-")[0] for file in files})
    split = _split(folder, splits, config.split)
    return [parquet_rows(file, config) for file in files if file.stem.partition("-")[0] == split]


def _split(folder: Path, splits: Sequence[str], wanted: str | None) -> str:
    if wanted is None and len(splits) == 1:
        return splits[0]
    if wanted not in splits:
        asked = "name one with split" if wanted is None else f"it has no '{wanted}'"
        raise DataError(f"{folder}: has several splits, {asked}; {one_of(splits)}")
    return str(wanted)


def _arrow_rows(folder: Path) -> list[Rows]:
    state = _document(folder / "state.json")
    if state.get("_indices_data_files"):
        raise DataError(f"{folder}: was saved as a selection of rows; call flatten_indices() before save_to_disk")
    rows: list[Rows] = []
    for entry in state.get("_data_files", []):
        path = folder / entry["filename"]
        try:
            table = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{path}: is no whole Arrow file: {error}") from error
        rows.append(ArrowRows(path, table))
    if not rows:
        raise DataError(f"{folder}: state.json names no file")
    return rows


class ArrowRows(TableRows):
    """Rows of an Arrow file that is mapped into memory; in another process it is mapped anew."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _mapped, (self.path,)


def _mapped(path: Path) -> ArrowRows:
    return ArrowRows(path, pa.ipc.open_stream(pa.memory_map(str(path))).read_all())


def _document(path: Path) -> dict[str, Any]:
    try:
        return json.loads(read_bytes(path))
    except ValueError as error:
        raise DataError(f"{path}: is no JSON: {error}") from error
