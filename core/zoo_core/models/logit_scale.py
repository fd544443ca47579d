"""Logit scale and bias: from cosines to logits and probabilities.

The parameters have the shape `[1]`, since FSDP shards no scalars; published checkpoints and outputs have `[]` or `[1]`.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo_core.boundary import checked
from zoo_core.errors import InputError
from zoo_core.nn.state_dict import is_sharded, publishes, sharded_like

__all__ = ["LOGIT_SCALE", "LogitScaled", "Scoring"]

Scoring = Literal["softmax", "sigmoid"]

LOGIT_SCALE = math.log(1 / 0.07)
"""Initial logarithm of the logit scale (Radford et al. 2021)."""

NAMES = ("logit_scale", "logit_bias")


class LogitScaled(nn.Module):
    """A module with a logit scale, and a logit bias where it is trained with sigmoids."""

    logit_scale: nn.Parameter
    logit_bias: nn.Parameter | None
    nonscalar_logit_scale: bool

    def _add_logit_scale(self, scale: float, bias: float | None, nonscalar: bool) -> None:
        self.nonscalar_logit_scale = nonscalar
        self.logit_scale = nn.Parameter(torch.full((1,), float(scale)))
        self.register_parameter("logit_bias", None if bias is None else nn.Parameter(torch.full((1,), float(bias))))

    @property
    def scoring(self) -> Scoring:
        """How logits become probabilities: each pair by its own (`sigmoid`) where the model was trained with a logit
        bias (Zhai et al. 2023), else the texts against each other (`softmax`)."""
        return "softmax" if self.logit_bias is None else "sigmoid"

    @checked
    def feature_probabilities(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """Return what `probabilities` does, of unit-norm features `[B, D]` and `[T, D]`."""
        shapes = [list(image_features.shape), list(text_features.shape)]
        if image_features.ndim != 2 or text_features.ndim != 2 or shapes[0][1] != shapes[1][1]:
            raise InputError(f"expected features [B, D] and [T, D], found {shapes[0]} and {shapes[1]}")
        if self.scoring == "softmax" and len(text_features) < 2:
            raise InputError("a softmax needs at least two texts to choose from: one alone always wins")
        logits = self._logits(image_features, text_features)[0].float()
        return logits.softmax(dim=-1) if self.scoring == "softmax" else logits.sigmoid()

    def _check_scoring(self, scoring: Scoring | None) -> None:
        if scoring not in (None, self.scoring):
            bias = "without a logit bias" if self.logit_bias is None else "with a logit bias"
            raise InputError(f"this model was trained {bias}: its scores are a {self.scoring}, not a {scoring}")

    def _logits(self, image_features: Tensor, text_features: Tensor) -> tuple[Tensor, Tensor]:
        scaled = self.logit_scale.exp() * image_features  # [B, D], float32 as the scale is, beside features in half
        logits = scaled @ text_features.to(scaled.dtype).T  # [B, T]
        if self.logit_bias is not None:
            logits = logits + self.logit_bias
        return logits, logits.T

    def _scale_and_bias(self) -> dict[str, Tensor]:
        """Return the exponentiated scale, and the bias if there is one, as outputs hold them."""
        # copies, since FSDP2 warns of views: what is written into one would not reach its hooks
        output = {"logit_scale": self._as_scalar(self.logit_scale.exp()).clone()}
        if self.logit_bias is not None:
            output["logit_bias"] = self._as_scalar(self.logit_bias).clone()
        return output

    def _as_scalar(self, value: Tensor) -> Tensor:
        """Return a logit scale or bias in the shape that callers and checkpoints see."""
        return value.reshape((1,) if self.nonscalar_logit_scale else ())  # functional_call may bring either

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)  # pyright: ignore[reportUnknownMemberType]
        for name in NAMES:
            value = destination.get(prefix + name)
            if value is not None and publishes() and not keep_vars and not is_sharded(value):
                destination[prefix + name] = self._as_scalar(value)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for name in NAMES:
            parameter, value = getattr(self, name), state_dict.get(prefix + name)
            if parameter is None or value is None:
                continue
            if value.numel() == 1:
                state_dict[prefix + name] = sharded_like(parameter, value.reshape(parameter.shape))  # from [] or [1]
            else:  # torch would take the first of several values for a scalar
                shape = f"found shape {list(value.shape)}"
                args[-1].append(f"size mismatch for {prefix}{name}: expected one value, {shape}.")
        super()._load_from_state_dict(state_dict, prefix, *args)  # pyright: ignore[reportUnknownMemberType]
