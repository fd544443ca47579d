"""Checks of the values and dtypes of weights.

They are made when weights are loaded, since torch says at first use what it says at all: a logit scale of 100 gives
probabilities that are NaN, and biases in another dtype than their matrices an error of a matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from zoo_core.checkpoints import TensorSource
from zoo_core.checkpoints.finite import LIMIT
from zoo_core.errors import CheckpointError
from zoo_core.models.dual_encoder import DualEncoder
from zoo_core.nn.layers import LayerNorm, RMSNorm

__all__ = ["check_values", "common_dtype", "expect_in_range"]

LARGEST_LOGIT = 1000.0
"""Factor between cosines and logits, and offset of logits, beyond which no model is trained; most have 100 at most."""


def check_values(
    source: TensorSource, keys: Mapping[str, str], dtype_of: Callable[[str], torch.dtype | None]
) -> list[str]:
    """Refuse values that make what a model gives NaN or infinite, and return a sentence about each that is unlikely.

    Args:
        source: the checkpoint.
        keys: entry of the model -> entry of the checkpoint.
        dtype_of: the dtype that an entry of the model will have; that of the checkpoint where None.

    Raises:
        CheckpointError: the exponential of the logit scale is infinite, or a variance of a batch norm is negative.
    """
    unlikely: list[str] = []
    for key, name in keys.items():
        if key.endswith("running_var") and bool((source.read(name) < 0).any()):
            raise CheckpointError(f"{source.path}: '{key}' holds negative variances; the file is damaged, get it again")
        if key == "logit_scale":
            value = float(source.read(name))
            why = "was its logarithm not taken? Store math.log of it under this name"
            dtype = dtype_of(key) or cast("torch.dtype", getattr(torch, source.entries[name].dtype))
            if value > math.log(torch.finfo(dtype).max):
                raise CheckpointError(f"{source.path}: logit_scale is {value:g}, and exp({value:g}) is infinite; {why}")
            if abs(value) > math.log(LARGEST_LOGIT):
                factor = f"{math.exp(value):.3g}"
                unlikely.append(
                    f"logit_scale is {value:g}, a factor of {factor}, where that of models is up to 100; {why}"
                )
        if key == "logit_bias" and abs(value := float(source.read(name))) > LARGEST_LOGIT:
            unlikely.append(f"logit_bias is {value:g}, where trained models have some -10: every probability is 0 or 1")
    return unlikely


def common_dtype(source: TensorSource, keys: Mapping[str, str], model: DualEncoder) -> torch.dtype | None:
    """Return the dtype that weights of several have to share to be computed with; None where they may stay as they are.

    Norms may be in float32 beside matrices in half precision, and so may logit scale and bias.
    """
    free = {"logit_scale", "logit_bias"}
    for prefix, module in cast("Iterable[tuple[str, nn.Module]]", model.named_modules()):
        if isinstance(module, LayerNorm | RMSNorm | _BatchNorm):
            free |= {f"{prefix}.{name}" for name in module.state_dict()}
    dtypes: dict[str, set[torch.dtype]] = {"free": set(), "others": set()}
    for key, name in keys.items():
        if source.entries[name].is_float:
            kind = "free" if {key, f"text.{key}"} & free else "others"
            dtypes[kind].add(getattr(torch, source.entries[name].dtype))
    if len(dtypes["others"]) <= 1 and dtypes["free"] <= dtypes["others"] | {torch.float32}:
        return None
    widest = torch.float16
    for dtype in sorted(dtypes["free"] | dtypes["others"], key=str):
        widest = torch.promote_types(widest, dtype)
    return widest


def expect_in_range(value: Tensor, dtype: torch.dtype, key: str, source: TensorSource) -> None:
    """Raise a `CheckpointError` where values that are finite would no longer be so in a dtype."""
    if not value.is_floating_point() or value.dtype == dtype or (largest := torch.finfo(dtype).max) > LIMIT:
        return
    beyond = int((value.abs() > largest).sum())
    if beyond:
        name = str(dtype).removeprefix("torch.")
        raise CheckpointError(
            f"{source.path}: {beyond} of {value.numel()} values of '{key}' are beyond {largest:g}, the largest that "
            f"{name} has; take bfloat16 or float32"
        )
