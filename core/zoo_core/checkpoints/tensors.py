"""Named tensors of a file, each read when it is asked for.

Dtypes and shapes are known before. Nothing here imports torch or numpy, since identifying a checkpoint needs neither.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo_core.errors import LONGEST_KEY

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ITEM_SIZES", "TensorInfo", "TensorSource", "shown"]

ITEM_SIZES: Mapping[str, int] = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "complex64": 8,
    "complex128": 16,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint64": 8,
    "uint32": 4,
    "uint16": 2,
    "uint8": 1,
    "bool": 1,
}
"""Bytes of one value of each dtype that a checkpoint may hold, by torch's names."""


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor without reading it.

    Attributes:
        dtype: torch's name of it, such as `"bfloat16"`.
        shape: its sizes.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def is_float(self) -> bool:
        """Whether its values are real numbers in floating point."""
        return "float" in self.dtype


class TensorSource(ABC):
    """Named tensors of a file, each read when it is asked for.

    Attributes:
        path: the file or folder, for messages.
        container: what kind of file it is, for messages.
        entries: what it holds.
        metadata: text that the file carries beside its tensors.
        notes: what was assumed in reading it, one sentence each.
    """

    path: Path
    container: str
    entries: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @abstractmethod
    def read(self, key: str) -> Tensor:
        """Return a tensor, on the CPU and mapped from the file where the container allows it.

        Raises:
            KeyError: there is no such entry.
            CheckpointError: the file is damaged.
        """

    def release(self, key: str) -> None:
        """Give back the memory that reading `key` took, if it can be; only where nothing of the tensor is in use."""
        return

    def check(self, keys: Iterable[str]) -> None:
        """Read the tensors of `keys` once and keep none, to tell what names and shapes do not.

        Raises:
            CheckpointError: bytes are damaged, or a value is NaN or infinite.
        """
        from zoo_core.checkpoints.finite import expect_finite  # which imports torch

        for key in keys:
            expect_finite(self.read(key), key, self.path)


def shown(keys: Iterable[str], limit: int = 6) -> str:
    """Return names for a message, cut after `limit`."""
    listed = list(keys)
    names = (name if len(name) <= LONGEST_KEY else f"{name[: LONGEST_KEY - 3]}..." for name in listed[:limit])
    return ", ".join(names) + (f" and {len(listed) - limit} more" if len(listed) > limit else "")
