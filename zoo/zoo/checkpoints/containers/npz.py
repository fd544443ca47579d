"""npz archives of numpy, as big_vision writes them.

Each array is listed from its header. Arrays of objects, which are pickles, are refused. big_vision stores bfloat16 as
two bytes without a type.
"""

from __future__ import annotations

import tokenize
import zipfile
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any

import numpy

from zoo.checkpoints.containers.mapped import MappedFile
from zoo.checkpoints.containers.safetensors import MAX_TENSORS
from zoo.checkpoints.containers.torch_files import ZIP_FAULTS
from zoo_core.checkpoints import ITEM_SIZES, TensorInfo, TensorSource
from zoo_core.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["NpzFile"]

MAX_INFLATION = 4
"""How many times larger than the file its arrays may be together."""
_SUFFIX = ".npy"
_FAULTS_OF_HEADERS = (SyntaxError, tokenize.TokenError, TypeError, LookupError, AttributeError, MemoryError)
"""What numpy raises over a header besides `ValueError`: it reads one as a literal of Python."""


class NpzFile(TensorSource):
    """The arrays of an npz archive.

    Raises:
        CheckpointError: it is none, is damaged, or would be far larger in memory than on the disk.
    """

    container = "npz"
    metadata: Mapping[str, str] = {}

    def __init__(self, file: MappedFile) -> None:
        self.path = file.path
        entries: dict[str, TensorInfo] = {}
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = archive.infolist()
                if len(members) > MAX_TENSORS:
                    what = f"it lists {len(members)} arrays, more than any model has; allowed: {MAX_TENSORS}"
                    raise self._damaged(what)
                inflated = sum(member.file_size for member in members)
                if inflated > MAX_INFLATION * file.size:
                    what = f"its {file.size} bytes would become {inflated}, more than {MAX_INFLATION} times as many"
                    raise self._damaged(f"{what}: a zip bomb")
                for member in members:
                    if not member.filename.endswith(_SUFFIX):
                        raise self._damaged(f"it holds {member.filename}, which is no array")
                    with archive.open(member) as opened:
                        shape, dtype = _header(opened)
                        info = TensorInfo(self._dtype(member.filename, dtype), shape)
                        if opened.tell() + info.count * ITEM_SIZES[info.dtype] != member.file_size:
                            raise self._damaged(f"{member.filename} has another size than its header says")
                    entries[member.filename.removesuffix(_SUFFIX)] = info
        except ZIP_FAULTS as error:
            if isinstance(error, CheckpointError):
                raise
            raise self._damaged(str(error).splitlines()[0] if str(error) else type(error).__name__) from None
        self.entries = entries

    def read(self, key: str) -> Tensor:
        """Return an array as a tensor of its own; archives hold them compressed, or unaligned."""
        import torch

        info = self.entries[key]
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{key}{_SUFFIX}") as opened:
                array: Any = numpy.lib.format.read_array(opened, allow_pickle=False)
        except ZIP_FAULTS as error:
            raise self._damaged(f"'{key}': {error}") from None
        if info.dtype == "bfloat16":
            array = array.view(numpy.int16)
        array = numpy.asarray(array, array.dtype.newbyteorder("="), order="C")
        tensor: Tensor = torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType]
        return tensor.view(torch.bfloat16) if info.dtype == "bfloat16" else tensor

    def _dtype(self, name: str, dtype: numpy.dtype[Any]) -> str:
        if dtype.kind == "V" and dtype.itemsize == 2:
            return "bfloat16"
        if dtype.name not in ITEM_SIZES:
            what = "objects, which only a pickle can hold" if dtype.hasobject else f"values of type {dtype.name}"
            raise self._damaged(f"{name} holds {what}")
        return dtype.name

    def _damaged(self, why: str) -> CheckpointError:
        return CheckpointError(f"{self.path} cannot be read as npz: {why}")


def _header(opened: IO[bytes]) -> tuple[tuple[int, ...], numpy.dtype[Any]]:
    version = numpy.lib.format.read_magic(opened)
    read = {(1, 0): numpy.lib.format.read_array_header_1_0, (2, 0): numpy.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"an array of format {version}")
    try:
        shape, _, dtype = read(opened)
    except _FAULTS_OF_HEADERS as error:
        raise ValueError(f"an array has a header that numpy did not write ({type(error).__name__})") from None
    if any(side < 0 for side in shape):
        raise ValueError(f"an array has the shape {shape}")
    return shape, dtype
