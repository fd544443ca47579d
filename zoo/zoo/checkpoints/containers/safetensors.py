"""safetensors files, listed from their header.

The header is checked in full, so that no tensor can reach outside the file or into another one. The reader of the
safetensors library is not used for it. That one takes a header that names a tensor twice, and it imports numpy: listing
450 tensors in a fresh process takes 60 ms of processor time with it (version 0.8) and 6 ms here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from zoo.checkpoints.containers.mapped import MappedFile
from zoo_core.checkpoints import ITEM_SIZES, TensorInfo, TensorSource
from zoo_core.errors import CheckpointError, describe

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MAX_HEADER", "MAX_TENSORS", "SafetensorsFile", "looks_like_safetensors"]

MAX_HEADER = 25_000_000
"""Bytes of a header; a model of 1000 layers needs a tenth."""
MAX_TENSORS = 100_000
_LENGTH = 8

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "C64": "complex64",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}


def looks_like_safetensors(head: bytes) -> bool:
    """Tell from the first nine bytes."""
    return head[_LENGTH : _LENGTH + 1] == b"{"


class SafetensorsFile(TensorSource):
    """The tensors of a safetensors file.

    Raises:
        CheckpointError: it is none, damaged, or larger in its header than any model.
    """

    container = "safetensors"

    def __init__(self, file: MappedFile) -> None:
        self.path = file.path
        self._file = file
        header, self._data = self._header()
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict):
            raise self._damaged("its metadata is no mapping")
        self.metadata = {key: str(value) for key, value in cast("dict[str, object]", metadata).items()}
        if len(header) > MAX_TENSORS:
            raise self._damaged(f"it lists {len(header)} tensors, more than any model has; allowed: {MAX_TENSORS}")
        self._starts: dict[str, int] = {}
        self.entries: Mapping[str, TensorInfo] = self._listed(header)

    def read(self, key: str) -> Tensor:
        """Return a tensor that is mapped from the file."""
        return self._file.tensor(self._data + self._starts[key], self.entries[key])

    def release(self, key: str) -> None:
        """Give back the pages of a tensor."""
        self._file.release(self._data + self._starts[key], self.entries[key])

    def check(self, keys: Iterable[str]) -> None:
        """Look for NaN and infinity."""
        for key in keys:
            self._file.check_finite(self._data + self._starts[key], self.entries[key], key)

    def _header(self) -> tuple[dict[str, Any], int]:
        head = self._file.bytes(0, _LENGTH)
        length = int.from_bytes(head, "little")
        if len(head) < _LENGTH or _LENGTH + length > self._file.size:
            raise self._damaged(f"its header of {length} bytes is longer than the file of {self._file.size}: truncated")
        if length > MAX_HEADER:
            raise self._damaged(f"its header of {length} bytes is longer than any model's; allowed: {MAX_HEADER}")
        try:  # `json_reader` notes the line of each key, which a header has not, and takes ten times as long
            header = json.loads(self._file.bytes(_LENGTH, _LENGTH + length), object_pairs_hook=_without_duplicates)
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"its header is no JSON: {str(error).splitlines()[0]}") from None
        if not isinstance(header, dict):
            raise self._damaged("its header is no mapping")
        return cast("dict[str, Any]", header), _LENGTH + length

    def _listed(self, header: Mapping[str, Any]) -> dict[str, TensorInfo]:
        """Return the entries, which must fill the file without gaps and overlaps."""
        entries: dict[str, TensorInfo] = {}
        spans: list[tuple[int, int, str]] = []
        for key, value in header.items():
            info, start, end = self._entry(key, value)
            entries[key], self._starts[key] = info, start
            spans.append((start, end, key))
        position = 0
        for start, end, key in sorted(spans):
            if start != position:
                raise self._damaged(f"'{key}' begins at byte {start} of the data, expected {position}")
            position = end
        expected = self._data + position
        if expected != self._file.size:
            what = "truncated" if expected > self._file.size else "something was added"
            raise self._damaged(f"it has {self._file.size} bytes, expected {expected}: {what}")
        return entries

    def _entry(self, key: str, value: Any) -> tuple[TensorInfo, int, int]:
        try:
            dtype, shape, (start, end) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
            numbers = [*shape, start, end]
        except (TypeError, KeyError, ValueError):
            raise self._damaged(f"'{key}' lacks dtype, shape or offsets") from None
        if any(type(number) is not int or number < 0 for number in numbers):
            raise self._damaged(f"'{key}' has a size or offset that is no natural number")
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            raise self._damaged(f"'{key}' has a dtype that no model has: {describe(dtype)}")
        info = TensorInfo(_DTYPES[dtype], shape)
        if end - start != info.count * ITEM_SIZES[info.dtype]:
            raise self._damaged(f"'{key}' takes {end - start} bytes, which do not fit {dtype} {list(shape)}")
        return info, start, end

    def _damaged(self, why: str) -> CheckpointError:
        return CheckpointError(f"{self.path} cannot be read as safetensors: {why}")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a key stands there twice")
    return mapping
