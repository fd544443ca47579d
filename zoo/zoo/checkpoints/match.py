"""Matching of the entries of a checkpoint with those of a model.

It is decided before a tensor is read.

Names may stand with or without `text.`, and one value may have the shape `[]` or `[1]`: every model loads both. The
weights of one tower may lack `visual.` and the logit scale, which is no part of a tower. Positions of another size are
resampled where that is asked for. Everything else has to be equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from zoo.checkpoints.explain import mismatch_error
from zoo.checkpoints.names import (
    LOGIT_BIAS,
    entries_of,
    lacking_prefix,
    optional_keys,
    own_name,
    prefix_that_fits,
)
from zoo.checkpoints.ranking import COUNTED
from zoo_core.checkpoints import TensorInfo, TensorSource, shown
from zoo_core.errors import CheckpointError
from zoo_core.nn.position_embedding import PositionTable, Resampling, grid_of, resample

if TYPE_CHECKING:
    from torch import Tensor

    from zoo_core.config import ModelConfig
    from zoo_core.models.dual_encoder import DualEncoder

__all__ = ["LoadOptions", "LoadPlan", "match_entries", "names_fit"]

Shape = tuple[int, ...]

_COUNT = "num_batches_tracked"


@dataclass(frozen=True)
class LoadOptions:
    """What a caller allows beyond an exact fit.

    Attributes:
        weights: which state dict of a training checkpoint; see `zoo.build`.
        resize: resample positions of another size.
        logit_bias: value of the logit bias where the weights have none.
        trained_size: height and width of the images that the weights were trained on, where known.
        described: what no shape tells of the weights is known from elsewhere and was compared, as that of a tag.
        folder_config: the architecture that the folder of the weights states, where that was read already.
    """

    weights: str | None = None
    resize: Resampling | None = None
    logit_bias: float | None = None
    trained_size: tuple[int, int] | None = None
    described: bool = False
    folder_config: ModelConfig | None = None


@dataclass
class LoadPlan:
    """What goes where.

    Attributes:
        keys: entry of the model -> entry of the checkpoint.
        changes: entry of the model -> what has to be done to the tensor.
        constants: entry of the model -> a value that the caller gave, or that the model has without weights.
        notes: what was assumed or done, one sentence each.
        warnings: those of the notes that change what the model gives.
    """

    keys: dict[str, str] = field(default_factory=dict[str, str])
    changes: dict[str, Callable[[Tensor], Tensor]] = field(default_factory=dict[str, "Callable[[Tensor], Tensor]"])
    constants: dict[str, float] = field(default_factory=dict[str, float])
    notes: list[str] = field(default_factory=list[str])
    warnings: list[str] = field(default_factory=list[str])


def match_entries(source: TensorSource, model: DualEncoder, options: LoadOptions) -> LoadPlan:
    """Return how a checkpoint's entries become those of a model.

    Args:
        source: the checkpoint, in our format.
        model: the model, on any device; one without a tower takes nothing of it.
        options: what is allowed beyond an exact fit.

    Raises:
        MismatchError: names or shapes do not fit; grouped by part of the model, with the likely cause.
        CheckpointError: a dtype does not fit.
    """
    expected = entries_of(model, source)
    names, plan = _named(source, expected, model)
    plan.keys = {key: name for key, name in names.items() if key in expected}
    missing = [key for key in expected if key not in names]
    if LOGIT_BIAS in missing and options.logit_bias is not None:
        missing.remove(LOGIT_BIAS)
        plan.constants[LOGIT_BIAS] = options.logit_bias
        plan.warnings.append(f"logit_bias is {options.logit_bias:g}, as asked: the weights have none")
    for key in [key for key in missing if key in optional_keys(model)]:
        missing.remove(key)
        value = cast("Tensor", getattr(model, key))  # on the meta device the config says what it is
        plan.constants[key] = float(getattr(model.config, f"init_{key}") if value.is_meta else value.detach())
        plan.notes.append(f"{key} is that of the model: the weights of one tower have none")
    unexpected = [name for key, name in names.items() if key not in expected]
    misshapen: dict[str, tuple[Shape, Shape]] = {}
    tables = {
        own_name(model.prefixes[modality] + name, expected): table
        for modality, tower in model.towers.items()
        for name, table in tower.position_tables().items()
    }
    for key, name in plan.keys.items():
        have, want = source.entries[name], expected[key]
        if have.shape == want.shape or (have.count == want.count == 1 and key.startswith("logit_")):
            continue
        change = _resampling(key, have.shape, tables.get(key), options) if options.resize else None
        if change is None:
            misshapen[key] = (have.shape, want.shape)
        else:
            plan.changes[key], sentence = change
            plan.warnings.append(sentence)
    if missing or unexpected or misshapen:
        raise mismatch_error(source, model, expected, tables, missing, unexpected, misshapen)
    for key, name in plan.keys.items():
        if key.endswith(_COUNT) and source.entries[name].is_float:  # as of a state dict that was cast as a whole
            plan.changes[key] = lambda count: count.long()
    _check_dtypes(source, expected, plan)
    return plan


def names_fit(source: TensorSource, model: DualEncoder) -> bool:
    """Tell whether a checkpoint's names are exactly those of a model, so that its format is ours."""
    expected, spare = entries_of(model, source), optional_keys(model)
    keys = [own_name(name, expected) for name in source.entries]
    taken = {key for key in keys if key in expected or model.accepts_key(key)}
    return taken - spare == expected.keys() - spare


def _named(
    source: TensorSource, expected: Mapping[str, TensorInfo], model: DualEncoder
) -> tuple[dict[str, str], LoadPlan]:
    """Return the checkpoint's entries by the names that the model has for them."""
    names = [name for name in source.entries if not name.endswith(COUNTED)]
    prefix = prefix_that_fits(names, expected, model)
    plan = LoadPlan(notes=[f"prefix '{prefix}' taken off every name"] if prefix else [])
    lacking = lacking_prefix([name.removeprefix(prefix) for name in names], expected, model)
    matched: dict[str, str] = {}
    for name in names:
        key = own_name(lacking + name.removeprefix(prefix), expected)
        if not model.accepts_key(key) and key not in expected:
            continue
        if key in matched:
            raise CheckpointError(f"{source.path} holds '{key}' twice: as {matched[key]} and as {name}")
        matched[key] = name
    return matched, plan


def _resampling(
    key: str, have: Shape, new: PositionTable | None, options: LoadOptions
) -> tuple[Callable[[Tensor], Tensor], str] | None:
    """Return what makes positions fit and a sentence about it; None where they are none, or their size is not told."""
    if new is None or len(have) < 2 or options.resize is None:
        return None
    count = have[-2] - new.extra
    if len(new.size) == 1:
        size: tuple[int, ...] | None = (count,)
    else:
        size = grid_of(count, options.trained_size or cast("tuple[int, int]", new.size))
    if size is None or count < 1:
        return None
    mode, old = options.resize, PositionTable(size, new.prefix, new.suffix)
    shapes = " to ".join(" x ".join(map(str, axes)) for axes in (size, new.size))
    how = mode if len(size) == 2 else "linear"
    return lambda table: resample(table, old, new, mode), f"positions '{key}' were resampled from {shapes} ({how})"


def _check_dtypes(source: TensorSource, expected: Mapping[str, TensorInfo], plan: LoadPlan) -> None:
    wrong = [
        f"{key} ({source.entries[name].dtype}, expected {expected[key].dtype})"
        for key, name in plan.keys.items()
        if (source.entries[name].is_float is not expected[key].is_float and key not in plan.changes)
        or "float8" in source.entries[name].dtype
    ]
    if wrong:
        raise CheckpointError(
            f"{source.path} holds values of a dtype that the model cannot take: {shown(wrong)}; are the weights "
            "quantized? Give those that they were made from"
        )
