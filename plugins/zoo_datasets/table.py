"""Tables of pairs: CSV, TSV and Parquet files."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from zoo_core.errors import DataError
from zoo_datasets.columns import ColumnDataset, wanted_columns
from zoo_datasets.config import ColumnsConfig, TableConfig
from zoo_datasets.files import find_files
from zoo_datasets.rows import ParquetRows, Rows, TableRows

__all__ = ["TableDataset", "parquet_rows"]

ENDINGS = (".csv", ".tsv", ".parquet")


class TableDataset(ColumnDataset):
    """Pairs in the rows of files."""

    def __init__(self, config: TableConfig) -> None:
        super().__init__(config, [_rows(path, config) for path in find_files(config.path)])


def _rows(path: Path, config: TableConfig) -> Rows:
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise DataError(f"{path}: a table ends in {', '.join(ENDINGS)}")
    if ending == ".parquet":
        return parquet_rows(path, config)
    return TableRows(path, _csv(path, config.separator or ("\t" if ending == ".tsv" else ",")))


def parquet_rows(path: Path, config: ColumnsConfig) -> Rows:
    """Return the rows of a Parquet file: in memory, unless there are whole files in them."""
    rows = ParquetRows(path, wanted_columns(config))
    names = [name for name in wanted_columns(config) if name in rows.columns]
    if len(names) < len(wanted_columns(config)) or any(rows.is_heavy(name) for name in names):
        return rows
    return TableRows(path, pq.read_table(path, columns=names))


def _csv(path: Path, separator: str) -> pa.Table:
    """Return a CSV file, each value as the text that it is: 'NA', 'null' and '007' stay what they are.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            header = file.readline().decode("utf-8-sig").rstrip("\r\n")
        names = next(iter(_split(header, separator)), [])
        return pa_csv.read_csv(
            path,
            parse_options=pa_csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: {'is an empty file' if 'Empty' in str(error) else error}") from error


def _split(header: str, separator: str) -> list[list[str]]:
    return list(csv.reader([header], delimiter=separator))
