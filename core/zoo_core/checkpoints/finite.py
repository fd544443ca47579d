"""Check of weights for NaN, infinity and values that no model has.

It runs as fast as memory is read: a norm is NaN, infinite or huge if a value is. It may also be so without one, so
then every value is looked at.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from zoo_core.errors import CheckpointError

__all__ = ["LIMIT", "expect_finite", "is_finite"]

LIMIT = 2.0**60
"""No weight is larger: a bit that flipped in a file makes such a value, and squares of it exceed float32."""
_EXPONENTS = {torch.float16: 0x7C00, torch.bfloat16: (127 + 60) << 7}
"""The smallest exponent, in its bits, of what is no such number: NaN and infinity, and what reaches the limit."""


def is_finite(tensor: Tensor) -> bool:
    """Tell whether no value is NaN, infinite or beyond the limit; integers never are."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    if tensor.itemsize == 1:  # torch adds up no values of eight bits
        return bool(tensor.float().isfinite().all())
    exponent = _EXPONENTS.get(tensor.dtype)
    if exponent is not None:  # norms of halves are slow on CPUs
        bits = tensor.view(torch.int16).bitwise_and(0x7C00 if tensor.dtype == torch.float16 else 0x7F80)
        return int(bits.amax()) < exponent
    norm = cast("Tensor", torch.linalg.vector_norm(tensor))  # pyright: ignore[reportUnknownMemberType]
    return bool(norm < LIMIT) or bool((tensor.abs() < LIMIT).all())


def expect_finite(tensor: Tensor, key: str, path: Path) -> None:
    """Raise a `CheckpointError` that names the entry and counts what is no number to compute with."""
    if is_finite(tensor):
        return
    values = tensor.float() if tensor.itemsize == 1 else tensor
    wrong = int((~values.isfinite()).sum())
    if wrong:
        raise CheckpointError(
            f"{path} holds NaN or infinity: {wrong} of {tensor.numel()} values of '{key}'; "
            "the training that wrote it diverged, or the file is damaged"
        )
    wrong = int((values.abs() >= LIMIT).sum())
    raise CheckpointError(
        f"{path} holds {wrong} of {tensor.numel()} values of '{key}' that no model has, of up to "
        f"{float(values.abs().amax()):.3g}; the file is damaged"
    )
