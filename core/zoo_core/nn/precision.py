"""Precision of a module: the dtype of its matrices."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from zoo_core.nn.layers import LayerNorm, RMSNorm

__all__ = ["cast_matrices", "matrix_dtype"]


def matrix_dtype(module: nn.Module, default: torch.dtype) -> torch.dtype:
    """Return the dtype that a module's matrix products run in."""
    for part in module.modules():  # not parameters(), which takes three times as long to the first of them
        for parameter in part._parameters.values():  # pyright: ignore[reportPrivateUsage]
            if parameter is not None and parameter.ndim > 1:
                return parameter.dtype
    return default


def cast_matrices(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast every parameter to `dtype`, but for those of norms and the logit scale and bias, which stay as they are.

    This is what the field calls bf16 or fp16 precision: matrix products in `dtype`, norms in float32. Of norms, ours
    and batch norms take inputs of another dtype; those of other libraries do not, and are cast along.
    """
    for module in model.modules():
        if isinstance(module, LayerNorm | RMSNorm | _BatchNorm):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if name not in ("logit_scale", "logit_bias"):
                parameter.data = parameter.data.to(dtype)
