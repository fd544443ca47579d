"""Features, tokens and intermediates of a tower, checked at each call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from zoo_core.boundary.plugin_code import maker_of
from zoo_core.errors import InputError, NotFiniteError, PluginError
from zoo_core.images.patches import described
from zoo_core.interfaces import Tower, VisionTower
from zoo_core.nn.tracing import has_values, is_traced

__all__ = ["features_of", "intermediates_of", "tokens_of"]


def features_of(tower: Tower, inputs: Any) -> Tensor:
    """Return the pooled features `[B, output_dim]` that a tower gives.

    Raises:
        PluginError: it gives something else.
    """
    features = tower(inputs)
    _expect_features(tower, "forward", features, inputs)
    return features


def tokens_of(tower: Tower, inputs: Any) -> tuple[Tensor, Tensor]:
    """Return what `forward_tokens` gives: pooled features `[B, output_dim]`, and tokens `[B, N, width]`.

    Raises:
        PluginError: it gives something else.
    """
    outputs: Any = tower.forward_tokens(inputs)
    if not isinstance(outputs, tuple) or len(cast("tuple[Any, ...]", outputs)) != 2:
        raise PluginError(_broken_promise(tower, "forward_tokens", "features and tokens", cast("object", outputs)))
    features, tokens = cast("tuple[Any, Any]", outputs)
    _expect_features(tower, "forward_tokens", features, inputs)
    if not isinstance(tokens, Tensor) or tokens.ndim != 3:
        raise PluginError(_broken_promise(tower, "forward_tokens", "tokens [B, N, width]", tokens))
    return features, tokens


def intermediates_of(tower: Tower, inputs: Any, **options: Any) -> dict[str, Any]:
    """Return what `forward_intermediates` gives: outputs of blocks, and features but for `intermediates_only`.

    Raises:
        PluginError: it gives something else.
    """
    output: Any = tower.forward_intermediates(inputs, **options)
    if is_traced(inputs):
        return output
    key = f"{tower.modality}_intermediates"
    blocks: Any = cast("dict[str, Any]", output).get(key) if isinstance(output, dict) else None
    if not isinstance(blocks, list):
        found = blocks if isinstance(output, dict) and key in output else cast("object", output)
        raise PluginError(_broken_promise(tower, "forward_intermediates", f"a list '{key}' in a dict", found))
    rows, ndim = len(_batch(inputs)), 4 if options["output_fmt"] == "NCHW" else 3
    for block in cast("list[Any]", blocks):
        if not isinstance(block, Tensor) or block.ndim != ndim or len(block) != rows or not block.is_floating_point():
            shape = f"[{rows}, C, h, w]" if ndim == 4 else f"[{rows}, N, C]"
            raise PluginError(_broken_promise(tower, "forward_intermediates", f"floating-point {shape}", block))
    if not options["intermediates_only"]:
        features: Any = cast("dict[str, Any]", output).get(f"{tower.modality}_features")
        _expect_features(tower, "forward_intermediates", features, inputs)
    return cast("dict[str, Any]", output)


def _expect_features(tower: Tower, method: str, features: object, inputs: Any) -> None:
    """Look at type, dtype and shape, which costs a microsecond; in evaluation on the CPU at values too.

    Elsewhere values would have to be waited for, and in training a loss that is not finite tells as much.
    """
    if is_traced(features):
        return
    batch = _batch(inputs)
    shape = (len(batch), tower.output_dim)
    if not isinstance(features, Tensor) or features.shape != shape or not features.is_floating_point():
        promise = f"floating-point features {list(shape)}"
        raise PluginError(_broken_promise(tower, method, promise, features))
    if tower.training or features.device.type != "cpu" or not has_values(features) or bool(features.isfinite().all()):
        return
    if batch.is_floating_point() and not bool(batch.isfinite().all()):
        what = "images" if isinstance(tower, VisionTower) else "inputs"
        raise InputError(f"the {what} hold NaN or infinity, and so would their features")
    fix = "compute in float32, or look for what is wrong with its weights (zoo.verify)"
    raise NotFiniteError(f"{maker_of(type(tower))}: {method} gave NaN or infinity of finite inputs; {fix}")


def _batch(inputs: Any) -> Tensor:
    """Return what holds a row for each input."""
    return cast("Tensor", inputs["patches"] if isinstance(inputs, Mapping) else inputs)


def _broken_promise(tower: Tower, method: str, promise: str, output: object) -> str:
    value = described(output) if isinstance(output, Tensor) else type(output).__name__
    return f"{maker_of(type(tower))}: {method} must return {promise}, found {value}"
