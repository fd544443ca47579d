"""Declaration of data sets in files and streams."""

from collections.abc import Iterator

from zoo_core.plugin import ComponentSpec, hookimpl

ZOO_API_VERSION = 1

_SUMMARIES = {
    "tar": ("TarConfig", "tar:TarDataset", "Tar shards of pairs (webdataset's form), by their index"),
    "table": ("TableConfig", "table:TableDataset", "CSV, TSV or Parquet files with a pair in each row"),
    "folder": ("FolderConfig", "folder:FolderDataset", "Image files with captions beside them"),
    "huggingface": ("HuggingFaceConfig", "huggingface:HuggingFaceDataset", "A data set that datasets saved to disk"),
    "webdataset": ("WebDatasetConfig", "streams:TarStream", "Tar shards as a stream, from files or commands"),
}


@hookimpl
def zoo_components() -> Iterator[ComponentSpec]:
    """Declare the parts of this plugin."""
    for name, (config, factory, summary) in _SUMMARIES.items():
        yield ComponentSpec(
            kind="dataset",
            name=name,
            config=f"zoo_datasets.config:{config}",
            factory=f"zoo_datasets.{factory}",
            summary=summary,
        )
