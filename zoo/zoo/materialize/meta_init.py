"""Construction on the meta device without computing initial values.

They mean nothing there, and cost seconds: torch computes `scale * tensor` on the meta device in Python, and the first
such operation of a process imports its compiler. That import takes longer than building and loading a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["SkipInit"]

_KEEP: frozenset[Any] = frozenset(
    getattr(Tensor, name)
    for name in ("add_", "clamp_", "copy_", "div_", "erfinv_", "fill_", "mul_", "normal_", "sub_", "uniform_", "zero_")
)
"""Methods that give a tensor other values in place."""
_SCALE: frozenset[Any] = frozenset({Tensor.mul, Tensor.div, Tensor.neg})
"""Operations whose result, by a number, has the shape and the dtype of their tensor."""

_DRAW: frozenset[Any] = frozenset({torch.randn, torch.rand})


class SkipInit(TorchFunctionMode):
    """Within it and `torch.device("meta")`, tensors are made and never filled; shapes and dtypes are as ever."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Leave out the operations that only change values."""
        kwargs = kwargs or {}
        tensor = args[0] if args else kwargs.get("tensor")  # what the functions of torch.nn.init pass on by name
        if isinstance(tensor, Tensor) and tensor.is_meta and tensor.is_floating_point():
            if func in _KEEP or getattr(func, "__module__", None) == "torch.nn.init":
                return tensor
            if func in _SCALE and all(isinstance(argument, int | float) for argument in args[1:]):
                return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        if func in _DRAW and kwargs.get("device") is None and torch.get_default_device().type == "meta":
            return torch.empty(*args, **{key: value for key, value in kwargs.items() if key != "generator"})
        return func(*args, **kwargs)
