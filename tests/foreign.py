"""What tests of checkpoints of other libraries share: tensors of a file, and how they are compared."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from zoo_core.checkpoints import TensorSource

WORDS = 600
"""Ids of the tiny text towers; the last one ends a caption."""


def tensors_of(source: TensorSource) -> dict[str, Tensor]:
    found = {key: source.read(key) for key in source.entries}
    for key, info in source.entries.items():
        assert (info.dtype, info.shape) == (str(found[key].dtype).removeprefix("torch."), tuple(found[key].shape))
    return found


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        tensor.dtype == other[key].dtype and torch.equal(tensor, other[key]) for key, tensor in one.items()
    )


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
