"""Files of `torch.save` and `torch.jit.save`, read without unpickling.

They hold a pickle that names tensors, and the bytes of the tensors beside it. The pickle is read as a tree: no code of
it runs, classes of training code need not be installed, and the program of a TorchScript archive is not looked at. The
bytes of tensors are mapped from the file, which stores them uncompressed.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from zoo.checkpoints.containers.mapped import MappedFile
from zoo.checkpoints.containers.pickles import Call, PickleError, read_pickle
from zoo.checkpoints.containers.safetensors import MAX_HEADER, MAX_TENSORS
from zoo.checkpoints.containers.torch_trees import StorageView, module_tensors, storage_item_sizes, with_tensors
from zoo.checkpoints.containers.wrappers import choose_weights
from zoo_core.checkpoints import ITEM_SIZES, TensorInfo, TensorSource
from zoo_core.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ZIP_FAULTS", "TorchFile", "looks_like_legacy"]

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LOCAL_HEADER = 30
"""Bytes of a zip entry's own header, before its name."""

_BLOCK = 1 << 22
"""Bytes of a storage that are read at a time for its checksum."""

ZIP_FAULTS = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    zlib.error,
)
"""What `zipfile` raises over a damaged archive."""

MAX_EXPANDED = 2**32
"""Bytes of a tensor that has one element in many places, as `expand` makes it of a few."""


@dataclass(frozen=True)
class StorageSpan:
    """Where a storage's bytes lie in the file; `crc` is their checksum, where the file has one."""

    start: int
    length: int
    crc: int | None = None


def looks_like_legacy(head: bytes) -> bool:
    """Tell a pickle from its first bytes, such as the files that torch wrote until version 1.6."""
    return head[:1] == b"\x80" and len(head) > 1 and head[1] <= 5


class TorchFile(TensorSource):
    """The tensors of a file that `torch.save` or `torch.jit.save` wrote.

    Args:
        file: the file.
        weights: which of several state dicts: None for the one that was trained, `"ema"`, or its name in the file.

    Raises:
        CheckpointError: it is none, is damaged, or holds no such tensors.
    """

    metadata: Mapping[str, str] = {}

    def __init__(self, file: MappedFile, weights: str | None = None) -> None:
        self.path = file.path
        self._file = file
        try:
            tree = self._archive() if file.bytes(0, 2) == b"PK" else self._legacy()
        except PickleError as error:
            raise self._damaged(str(error)) from None
        except (TypeError, AttributeError, LookupError, OverflowError, RecursionError) as error:
            raise self._damaged(f"its pickle is none that torch writes ({type(error).__name__}: {error})") from None
        self._spans: Mapping[str, StorageSpan]
        if isinstance(tree, Call):
            views: Mapping[str, Any] = dict(module_tensors(tree))
            if not views:
                raise CheckpointError(
                    f"{self.path} holds an object of {tree.callee}, not the tensors of one; in Python where it can be "
                    "loaded, save its state_dict() with safetensors"
                )
            self.notes = (
                ("the program of the TorchScript archive was not run",) if self.container[:6] == "TorchS" else ()
            )
        else:
            views, self.notes = choose_weights(tree, StorageView, weights, self.path)
        if len(views) > MAX_TENSORS:
            raise self._damaged(f"it lists {len(views)} tensors, more than any model has; allowed: {MAX_TENSORS}")
        self._views = {key: self._checked(key, view) for key, view in views.items()}
        self.entries: Mapping[str, TensorInfo] = {key: view.info for key, view in self._views.items()}

    def read(self, key: str) -> Tensor:
        """Return a tensor that is mapped from the file, with the strides that it was saved with."""
        import torch

        view = self._views[key]
        start = self._start(view)
        if view.is_contiguous:
            return self._file.tensor(start, view.info)
        flat = self._file.tensor(start, TensorInfo(view.info.dtype, (view.end - view.offset,)))
        return torch.as_strided(flat, view.info.shape, view.stride)

    def release(self, key: str) -> None:
        """Give back the pages of a tensor."""
        view = self._views[key]
        if view.is_contiguous:
            self._file.release(self._start(view), view.info)

    def check(self, keys: Iterable[str]) -> None:
        """Compare storages with their checksums, and look for NaN and infinity."""
        names = list(keys)
        for storage in dict.fromkeys(self._views[key].storage for key in names):
            span = self._spans[storage]
            if span.crc is None:
                continue
            crc, end = 0, span.start + span.length
            for start in range(span.start, end, _BLOCK):
                crc = zlib.crc32(self._file.bytes(start, min(start + _BLOCK, end)), crc)
            if crc != span.crc:
                raise self._damaged(f"the bytes of storage {storage} do not have their checksum")
        for key in names:
            view = self._views[key]
            if view.is_contiguous:
                self._file.check_finite(self._start(view), view.info, key)
            else:
                super().check([key])

    def _start(self, view: StorageView) -> int:
        return self._spans[view.storage].start + view.offset * ITEM_SIZES[view.info.dtype]

    def _archive(self) -> Any:
        """Read the zip archive of torch 1.6 and later."""
        with self.path.open("rb") as opened:
            try:
                archive = zipfile.ZipFile(opened)
                names = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
                if len(names) != 1:
                    raise self._damaged("it is a zip archive, but holds no data.pkl")
                root = names[0].removesuffix("data.pkl")
                script = f"{root}constants.pkl" in archive.namelist()
                self.container = "TorchScript" if script else "torch"
                if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder")[:8] != b"little":
                    raise self._damaged("it was written on a big-endian machine")
                pickle = archive.getinfo(names[0])
                if pickle.file_size > MAX_HEADER:
                    raise self._damaged(f"its pickle has {pickle.file_size} bytes, more than any model's")
                self._spans = {
                    entry.filename.removeprefix(f"{root}data/"): self._span(entry)
                    for entry in archive.infolist()
                    if entry.filename.startswith(f"{root}data/")
                }
                tree = read_pickle(io.BytesIO(archive.read(pickle)))
            except ZIP_FAULTS as error:
                if isinstance(error, CheckpointError | PickleError):
                    raise
                raise self._damaged(f"it is a damaged zip archive: {error}; truncated?") from None
        return with_tensors(tree)

    def _span(self, entry: zipfile.ZipInfo) -> StorageSpan:
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise self._damaged(f"{entry.filename} is compressed, which torch never does")
        local = self._file.bytes(entry.header_offset, entry.header_offset + _LOCAL_HEADER)
        name, extra = int.from_bytes(local[26:28], "little"), int.from_bytes(local[28:30], "little")
        start = entry.header_offset + _LOCAL_HEADER + name + extra
        if local[:4] != b"PK\x03\x04" or start + entry.file_size > self._file.size:
            raise self._damaged(f"{entry.filename} reaches beyond the end of the file: truncated")
        return StorageSpan(start, entry.file_size, entry.CRC)

    def _legacy(self) -> Any:
        """Read the sequence of pickles that torch wrote until version 1.6: magic, version, system, tree, keys."""
        self.container = "torch (before 1.6)"
        opened = io.BytesIO(self._file.bytes(0, MAX_HEADER))  # a file would reserve whatever length a pickle claims
        if read_pickle(opened) != _LEGACY_MAGIC:
            raise CheckpointError(
                f"{self.path} is a pickle, and not one of torch; zoo runs no pickles. In Python where it can be "
                "loaded, save its tensors with safetensors"
            )
        _, _, tree, keys = (read_pickle(opened) for _ in range(4))
        position = opened.tell()
        if not isinstance(keys, list):
            raise self._damaged("it does not say in which order its storages come")
        sizes = storage_item_sizes(tree)
        self._spans = {}
        for key in cast("list[Any]", keys):
            if key not in sizes:
                raise self._damaged(f"its storage {key!r} belongs to no tensor")
            start = position + 8
            length = int.from_bytes(self._file.bytes(position, start), "little") * sizes[key]
            if start + length > self._file.size:
                raise self._damaged(f"its storage {key!r} reaches beyond the end of the file: truncated")
            self._spans[key] = StorageSpan(start, length)
            position = start + length
        return with_tensors(tree)

    def _checked(self, key: str, view: StorageView) -> StorageView:
        span = self._spans.get(view.storage)
        if span is None:
            raise self._damaged(f"the storage of '{key}' is not there")
        if min(view.offset, *view.info.shape, *view.stride, 0) < 0:
            raise self._damaged(f"'{key}' has a negative size")
        if view.end * ITEM_SIZES[view.info.dtype] > span.length:
            raise self._damaged(f"'{key}' {list(view.info.shape)} reaches beyond its storage of {span.length} bytes")
        size = math.prod(view.info.shape) * ITEM_SIZES[view.info.dtype]
        if size > max(span.length, MAX_EXPANDED):
            raise self._damaged(f"'{key}' {list(view.info.shape)} repeats {span.length} bytes until they are {size}")
        return view

    def _damaged(self, why: str) -> CheckpointError:
        return CheckpointError(f"{self.path} cannot be read as weights of torch: {why}")
