"""Configs of the data sets.

`inputs` says, for each modality, where its inputs are: by the ending of a member or file, or by the name of a column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from zoo_core.config import DatasetConfig
from zoo_core.plugin import IMAGE

__all__ = [
    "FilesConfig",
    "FolderConfig",
    "HuggingFaceConfig",
    "MembersConfig",
    "TableConfig",
    "TarConfig",
    "WebDatasetConfig",
]


def _as_list(value: Any) -> Any:
    """Let one string stand for a list of one."""
    return [value] if isinstance(value, str) else value


Strings = Annotated[list[str], BeforeValidator(_as_list), Field(min_length=1)]

_ENDING = re.compile(r"\.?[A-Za-z0-9_.-]+(:.+)?")
IMAGES_AND_TEXTS = {IMAGE.name: [ending.removeprefix(".") for ending in IMAGE.files], "text": ["txt"]}


class FilesConfig(DatasetConfig):
    """What data sets in files share."""

    path: Strings
    """Files, as a path or a pattern such as `shards/*.tar`, or several of either; braces count, `{000..123}.tar`."""
    missing: Literal["refuse", "skip"] = "refuse"
    """What is done when the data set is opened and samples lack an input: refuse it, or leave those out."""


class MembersConfig(FilesConfig):
    """What data sets share whose samples are files that differ in their ending alone."""

    inputs: dict[str, Strings] = IMAGES_AND_TEXTS
    """For each modality the endings of its files; the first that is there counts. `json:caption` is the value of a key
    in the file that ends in json: a text, or a list of texts that say the same."""
    id: str | None = None
    """Where the id of a sample is, such as `json:image_id`; samples of one id are positives of each other."""
    sample_weight: str | None = None
    """Where the factor of a sample's part of the loss is, such as `json:weight`."""

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold endings to their form."""
        yield from super().rules()
        for name, endings in self.inputs.items():
            for ending in endings:
                if not _ENDING.fullmatch(ending):
                    yield f"inputs.{name}", f"expected an ending such as 'jpg' or 'json:caption', found '{ending}'"
        for key in ("id", "sample_weight"):
            value = getattr(self, key)
            if value is not None and not (_ENDING.fullmatch(value) and ":" in value):
                yield key, f"expected a key of a JSON file, such as 'json:{key}', found '{value}'"


class TarConfig(MembersConfig):
    """Tar shards in webdataset's form: members of a sample have one name up to its first dot."""

    type: str = "tar"


class FolderConfig(MembersConfig):
    """A folder, with those below it: files of a sample have one name up to its last dot."""

    type: str = "folder"


class ColumnsConfig(FilesConfig):
    """What data sets share whose samples are rows."""

    inputs: dict[str, Strings] = {"image": ["image"], "text": ["text"]}
    """For each modality the columns of its inputs. Several say the same; so do the entries of a list, and of a list in
    JSON. Of images they hold paths, or the bytes of files."""
    id: str | None = None
    """The column of the id; samples of one id are positives of each other."""
    sample_weight: str | None = None
    """The column of the factor of a sample's part of the loss."""
    root: str | None = None
    """The folder that paths are relative to; that of the file where null."""


class TableConfig(ColumnsConfig):
    """Files that end in .csv, .tsv or .parquet; the first row of a CSV file names the columns."""

    type: str = "table"
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """What stands between the values of a CSV file: a comma, or a tab in files that end in .tsv, where null."""


class HuggingFaceConfig(ColumnsConfig):
    """A folder that `save_to_disk` of datasets wrote, or one of Parquet files, as repositories of the Hub are."""

    type: str = "huggingface"
    split: str | None = None
    """The split, where the folder has several."""


class WebDatasetConfig(MembersConfig):
    """Tar shards that are read from their beginning to their end, mixed in a buffer."""

    resume: ClassVar[Literal["exact", "approximate"]] = "approximate"

    type: str = "webdataset"
    path: Strings
    """Files, as in other data sets, or commands that print a tar file: `pipe:curl -s https://.../{000..123}.tar`."""
    buffer: Annotated[int, Field(ge=1)] = 1000
    """Samples of which each next one is drawn."""

    def rules(self) -> Iterator[tuple[str, str]]:
        """Refuse what takes an index."""
        yield from super().rules()
        if self.choose == "all":
            yield "choose", "'all' takes a data set with an index, such as type: tar"
        if self.missing != "refuse":
            yield "missing", "is for data sets with an index; of a stream samples that lack an input count as bad"
