"""Whether all values of a tensor are finite, told at the speed at which memory is read.

A sum is NaN or infinite if a value is. It may also overflow, so where it is not finite every value is looked at.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from zoo_core.errors import CheckpointError

__all__ = ["expect_finite", "is_finite"]

_EXPONENTS = {torch.float16: 0x7C00, torch.bfloat16: 0x7F80}
"""The bits of the exponent; all of them are set in NaN and in infinity."""


def is_finite(tensor: Tensor) -> bool:
    """Tell whether no value is NaN or infinite; integers never are."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    if tensor.itemsize == 1:  # torch adds up no values of eight bits
        return bool(tensor.float().isfinite().all())
    exponent = _EXPONENTS.get(tensor.dtype)
    if exponent is not None:  # sums of halves are slow on CPUs
        bits = tensor.view(torch.int16).bitwise_and(exponent)
        return int(bits.amax()) < exponent
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def expect_finite(tensor: Tensor, key: str, path: Path) -> None:
    """Raise a `CheckpointError` that names the entry and counts what is not finite."""
    if is_finite(tensor):
        return
    values = tensor.float() if tensor.itemsize == 1 else tensor
    wrong = int((~values.isfinite()).sum())
    raise CheckpointError(
        f"{path} holds NaN or infinity: {wrong} of {tensor.numel()} values of '{key}'; "
        "the training that wrote it diverged, or the file is damaged"
    )
