"""Loading of weights into models: all of them, or none.

Everything is checked before the first tensor is taken.

A new model is built without memory (on the meta device) and takes the tensors of the memory-mapped file as its own, so
that nothing is drawn at random only to be thrown away, and nothing is held twice.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from zoo.checkpoints.compatibility import check_architecture
from zoo.checkpoints.match import LoadOptions, LoadPlan, match_entries, names_fit
from zoo.checkpoints.open import open_checkpoint
from zoo.checkpoints.weight_values import check_values, common_dtype, expect_in_range
from zoo_core.boundary import checked
from zoo_core.checkpoints import TensorSource
from zoo_core.config import ModelConfig
from zoo_core.errors import InputError, ZooWarning, describe, warn_caller
from zoo_core.models.dual_encoder import DualEncoder, dual_encoder_of
from zoo_core.nn.position_embedding import Resampling
from zoo_core.nn.state_dict import own_state_dict

__all__ = ["load_weights", "take_weights"]

_log = logging.getLogger(__name__)


@checked
def load_weights(
    model: DualEncoder | Any,
    source: str | Path,
    *,
    weights: str | None = None,
    resize: Resampling | None = None,
    logit_bias: float | None = None,
) -> DualEncoder:
    """Replace the weights of a model by those of a checkpoint: all of them, or on any error none.

    The parameters stay the same objects, on their devices and in their dtypes, as optimizers need it.

    Args:
        model: what `zoo.build` made, or any `DualEncoder`, sharded or not; or what torch.compile wraps around it.
        source: a file or folder of any container and format that an installed plugin knows.
        weights: which state dict of a training checkpoint: None for the trained one, `"ema"`, or its name there.
        resize: resample positions of another size: `"bicubic"` or `"bilinear"` (text: linearly).
        logit_bias: value of the model's logit bias where the weights have none.

    Returns:
        the model.

    Raises:
        CheckpointError: the weights are damaged, not finite, or do not fit; the model is unchanged.
    """
    model, options = dual_encoder_of(model), checked_options(LoadOptions(weights, resize, logit_bias))
    opened = open_checkpoint(Path(source), weights=weights, is_ours=lambda checkpoint: names_fit(checkpoint, model))
    config = getattr(model, "config", None)
    assumed = [] if config is None else check_architecture(opened, Path(source), config)
    entries = own_state_dict(model) | cast("dict[str, Tensor]", model.state_dict())
    plan = _checked_fit(opened, model, options, assumed, lambda key: entries[key].dtype)
    tensors: dict[str, Tensor] = {}
    for key, value, _ in _tensors(opened, plan, model):
        expect_in_range(value, entries[key].dtype, key, opened)
        tensors[key] = value
    with torch.no_grad():
        model.load_state_dict(tensors)
    model.notes = _all_notes(opened, plan)
    return model


def take_weights(
    model: DualEncoder,
    path: Path,
    *,
    config: ModelConfig,
    device: torch.device,
    dtype: torch.dtype | None = None,
    options: LoadOptions | None = None,
    overrides: Sequence[str] = (),
) -> None:
    """Give a model on the meta device the weights of a checkpoint, as its own tensors.

    Buffers that no file holds stay on the meta device.

    Args:
        model: the model.
        path: a file or folder.
        config: the model's architecture.
        device: where the weights go.
        dtype: of floating-point weights; that of the file where None, or one for all where it has several that cannot
            be computed with together.
        options: what is allowed beyond an exact fit.
        overrides: the changes of the architecture that the caller asked for.

    Raises:
        CheckpointError: the weights are damaged, not finite, or do not fit.
    """
    options = options or LoadOptions()
    source = open_checkpoint(path, weights=options.weights, is_ours=lambda checkpoint: names_fit(checkpoint, model))
    assumed = check_architecture(
        source, path, config, overrides, described=options.described, folder_config=options.folder_config
    )
    plan = _checked_fit(source, model, options, assumed, lambda _: dtype)
    if dtype is None and (dtype := common_dtype(source, plan.keys, model)) is not None:
        plan.notes.append(f"taken as {str(dtype).removeprefix('torch.')}: the weights are of several dtypes")
    tensors: dict[str, Tensor] = {}
    for key, value, name in _tensors(source, plan, model):
        if dtype is not None:
            expect_in_range(value, dtype, key, source)
        taken = value.to(device, dtype if value.is_floating_point() else None)
        if name is not None and taken.untyped_storage().data_ptr() != value.untyped_storage().data_ptr():
            source.release(name)
        tensors[key] = taken
    model.load_state_dict(tensors, assign=True)
    model.notes = _all_notes(source, plan)


def checked_options(options: LoadOptions) -> LoadOptions:
    """Return options if they are such.

    Raises:
        InputError: one is not.
    """
    resize = cast("object", options.resize)
    if resize is not None and not (isinstance(resize, str) and resize in ("bicubic", "bilinear")):
        raise InputError(f"resize must be None, 'bicubic' or 'bilinear', found {describe(options.resize)}")
    bias: object = options.logit_bias
    if bias is not None and not (type(bias) in (int, float) and math.isfinite(bias)):
        raise InputError(f"logit_bias must be a finite number, found {describe(bias)}")
    return options


def _checked_fit(
    source: TensorSource,
    model: DualEncoder,
    options: LoadOptions,
    assumed: Sequence[str],
    dtype_of: Callable[[str], torch.dtype | None],
) -> LoadPlan:
    plan = match_entries(source, model, options)
    plan.notes += assumed
    source.check(list(plan.keys.values()))
    plan.warnings += check_values(source, plan.keys, dtype_of)
    for text in plan.warnings:
        warn_caller(f"{source.path}: {text}", ZooWarning)
    for text in _all_notes(source, plan):
        _log.info("%s: %s", source.path, text)
    return plan


def _tensors(source: TensorSource, plan: LoadPlan, model: DualEncoder) -> Iterator[tuple[str, Tensor, str | None]]:
    """Yield each entry of the model with its tensor, and the entry of the checkpoint where it is just that."""
    for key, name in plan.keys.items():
        value = source.read(name)
        change = plan.changes.get(key)
        yield (key, value, name) if change is None else (key, change(value), None)
    for key, constant in plan.constants.items():
        yield key, torch.full(cast("Tensor", model.state_dict()[key]).shape, float(constant)), None


def _all_notes(source: TensorSource, plan: LoadPlan) -> tuple[str, ...]:
    return (*source.notes, *plan.notes, *plan.warnings)
