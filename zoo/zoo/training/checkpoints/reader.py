"""Readers and writers of torch's distributed checkpoints, of which nothing is executed.

torch reads the metadata of a checkpoint, and what is no tensor in it, with Python's pickle. Here the metadata may name
the classes of torch that describe it and no others, and a checkpoint holds tensors alone.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata

from zoo_core.errors import CheckpointError

__all__ = ["TensorReader"]

HARMLESS = {
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch": {
        "Size",
        "float64",
        "float32",
        "float16",
        "bfloat16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint8",
        "bool",
        "strided",
    },
    "torch.serialization": {"_get_layout"},
    "collections": {"OrderedDict"},
    "pathlib": {"PosixPath", "WindowsPath"},
    "pathlib._local": {"PosixPath", "WindowsPath"},  # their place in Python 3.13
    "builtins": {"set", "frozenset"},
}
"""Names that the metadata may hold: data classes, dtypes and containers."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in HARMLESS.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no checkpoint of tensors needs")


class TensorReader(FileSystemReader):
    """Reads tensors of a checkpoint; its metadata runs no code.

    Raises:
        CheckpointError: the metadata is damaged, or asks for something else than data; or there is more than tensors.
    """

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return what the checkpoint holds."""
        path = Path(str(self.path)) / ".metadata"  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
        try:
            with path.open("rb") as file:
                metadata: Any = _Unpickler(file).load()
        except Exception as error:  # whatever a damaged pickle raises
            raise CheckpointError(f"{path} cannot be read: {error}") from error
        if not isinstance(metadata, Metadata):
            raise CheckpointError(f"{path} is no metadata of a checkpoint")
        for name, entry in metadata.state_dict_metadata.items():
            if isinstance(entry, BytesStorageMetadata):
                raise CheckpointError(f"{path}: '{name}' is no tensor")
        return metadata
