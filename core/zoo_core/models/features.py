"""Features and tokens of a tower, held to what its kind promises at each call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from zoo_core.boundary.plugin_code import maker_of
from zoo_core.errors import InputError, NotFiniteError, PluginError
from zoo_core.images.patches import described
from zoo_core.interfaces import Tower, VisionTower
from zoo_core.nn.tracing import has_values, is_recorded, is_symbolic

__all__ = ["features_of", "tokens_of"]


def features_of(tower: Tower, inputs: Any) -> Tensor:
    """Return the pooled features `[B, output_dim]` that a tower gives.

    Raises:
        PluginError: it gives something else.
    """
    found = tower(inputs)
    _expect_features(tower, "forward", found, inputs)
    return found


def tokens_of(tower: Tower, inputs: Any) -> tuple[Tensor, Tensor]:
    """Return what `forward_tokens` gives: pooled features `[B, output_dim]`, and tokens `[B, N, width]`.

    Raises:
        PluginError: it gives something else.
    """
    found: Any = cast("Any", tower).forward_tokens(inputs)
    if not isinstance(found, tuple) or len(cast("tuple[Any, ...]", found)) != 2:
        raise PluginError(_told(tower, "forward_tokens", "features and tokens", cast("object", found)))
    features, tokens = cast("tuple[Any, Any]", found)
    _expect_features(tower, "forward_tokens", features, inputs)
    if not isinstance(tokens, Tensor) or tokens.ndim != 3:
        raise PluginError(_told(tower, "forward_tokens", "tokens [B, N, width]", tokens))
    return features, tokens


def _expect_features(tower: Tower, method: str, found: object, inputs: Any) -> None:
    """Look at type, dtype and shape, which costs a microsecond; in evaluation on the CPU at values too.

    Elsewhere values would have to be waited for, and in training a loss that is not finite tells as much.
    """
    if torch.compiler.is_compiling() or is_symbolic(found) or is_recorded():
        return
    given = cast("Tensor", inputs["patches"] if isinstance(inputs, Mapping) else inputs)
    if not isinstance(found, Tensor) or found.shape != (len(given), tower.output_dim) or not found.is_floating_point():
        wanted = f"floating-point features {[len(given), tower.output_dim]}"
        raise PluginError(_told(tower, method, wanted, found))
    if tower.training or found.device.type != "cpu" or not has_values(found) or bool(found.isfinite().all()):
        return
    if given.is_floating_point() and not bool(given.isfinite().all()):
        what = "images" if isinstance(tower, VisionTower) else "inputs"
        raise InputError(f"the {what} hold NaN or infinity, and so would their features")
    fix = "compute in float32, or look for what is wrong with its weights (zoo.verify)"
    raise NotFiniteError(f"{maker_of(type(tower))}: {method} gave NaN or infinity of finite inputs; {fix}")


def _told(tower: Tower, method: str, wanted: str, found: object) -> str:
    value = described(found) if isinstance(found, Tensor) else type(found).__name__
    return f"{maker_of(type(tower))}: {method} must return {wanted}, found {value}"
