"""A file mapped into memory.

Its tensors are views of the mapping, so nothing is read before it is used. The mapping is private: writing to a tensor
never writes to the file.
"""

from __future__ import annotations

import mmap
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from zoo_core.checkpoints import ITEM_SIZES, TensorInfo
from zoo_core.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MappedFile"]

_WINDOW = 1 << 26
"""Bytes that are looked at in one go; their pages are given back before the next."""
_POPULATE_READ = 22
"""Linux's advice to map pages that are in the page cache at once, since 5.14."""


class MappedFile:
    """A regular file that is not empty.

    Raises:
        CheckpointError: it is none, or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise CheckpointError(f"{path} is no regular file; expected a file of weights")
            with path.open("rb") as file:
                self.size = file.seek(0, 2)
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if self.size else None
        except FileNotFoundError:
            raise CheckpointError(f"{path} is no file; expected a file of weights") from None
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from None

    def bytes(self, start: int, end: int) -> bytes:
        """Return a copy of some bytes; fewer where the file ends before."""
        return b"" if self._map is None else self._map[start:end]

    def tensor(self, start: int, info: TensorInfo) -> Tensor:
        """Return the contiguous tensor that begins at a byte; bounds were checked by whoever lists the entries."""
        import torch

        dtype: torch.dtype = getattr(torch, info.dtype)
        if not info.count:
            try:
                return torch.empty(info.shape, dtype=dtype)
            except (RuntimeError, TypeError, OverflowError):  # no values, but sizes beyond all numbers
                raise CheckpointError(f"{self.path} holds a tensor of the shape {info.shape}, which none has") from None
        assert self._map is not None and start + info.count * ITEM_SIZES[info.dtype] <= self.size
        flat = torch.frombuffer(self._map, dtype=dtype, count=info.count, offset=start)
        aligned = flat if flat.data_ptr() % flat.itemsize == 0 else flat.clone()
        return aligned.view(info.shape)

    def release(self, start: int, info: TensorInfo) -> None:
        """Give back the pages of a tensor that nobody uses; what was written to them is lost."""
        with _Window(self._map, start, info.count * ITEM_SIZES[info.dtype], populate=False):
            pass

    def check_finite(self, start: int, info: TensorInfo, key: str) -> None:
        """Read a tensor piece by piece, and raise a `CheckpointError` if a value is NaN or infinite."""
        from zoo_core.checkpoints.finite import expect_finite

        if not info.is_float:
            return
        size = ITEM_SIZES[info.dtype]
        step = _WINDOW // size
        for first in range(0, info.count, step):
            count = min(step, info.count - first)
            with _Window(self._map, start + first * size, count * size):
                expect_finite(self.tensor(start + first * size, TensorInfo(info.dtype, (count,))), key, self.path)


class _Window:
    """Pages that are mapped at once where the system can, and given back afterwards.

    Whatever was written to them meanwhile would be lost, so a window is only open over tensors that nobody has yet.
    """

    def __init__(self, memory: mmap.mmap | None, start: int, length: int, *, populate: bool = True) -> None:
        self._populate = populate
        self._memory = memory if hasattr(mmap.mmap, "madvise") else None
        end = start + length
        self._start = start // mmap.PAGESIZE * mmap.PAGESIZE
        self._length = end - self._start

    def __enter__(self) -> None:
        if self._populate:
            self._advise(_POPULATE_READ)

    def __exit__(self, *_: object) -> None:
        self._advise(getattr(mmap, "MADV_DONTNEED", -1))

    def _advise(self, advice: int) -> None:
        if self._memory is None or self._length <= mmap.PAGESIZE or advice < 0:
            return
        try:
            self._memory.madvise(advice, self._start, self._length)
        except OSError:  # an older system
            return
