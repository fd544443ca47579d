"""How the entries of a checkpoint fit a model, decided before a tensor is read; what does not fit is explained.

Names may stand with or without `text.`, and one value may have the shape `[]` or `[1]`: every model loads both. The
weights of one tower may lack `visual.` and the logit scale, which is no part of a tower. Positions of another size are
resampled where that is asked for. Everything else has to be equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from zoo.catalog.state_dict_shapes import shapes_of
from zoo.checkpoints.identify import COUNTED, likeness, rank
from zoo_core.checkpoints import TensorInfo, TensorSource, shown
from zoo_core.errors import CheckpointError, MismatchError
from zoo_core.nn.position_embedding import PositionTable, Resampling, grid_of, resample

if TYPE_CHECKING:
    from torch import Tensor

    from zoo_core.models.dual_encoder import DualEncoder

__all__ = ["LoadOptions", "LoadPlan", "match_entries", "names_fit"]

Shape = tuple[int, ...]

BIAS = "logit_bias"
_COUNT = "num_batches_tracked"
_TEXT, _VISUAL = "text.", "visual."


@dataclass(frozen=True)
class LoadOptions:
    """What a caller allows beyond an exact fit.

    Attributes:
        weights: which state dict of a training checkpoint; see `zoo.build`.
        resize: resample positions of another size.
        logit_bias: value of the logit bias where the weights have none.
        trained_size: height and width of the images that the weights were trained on, where known.
        described: what no shape tells of the weights is known from elsewhere and was compared, as that of a tag.
    """

    weights: str | None = None
    resize: Resampling | None = None
    logit_bias: float | None = None
    trained_size: tuple[int, int] | None = None
    described: bool = False


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
        source: the checkpoint, in our layout.
        model: the model, on any device; one without a tower takes nothing of it.
        options: what is allowed beyond an exact fit.

    Raises:
        MismatchError: names or shapes do not fit; grouped by part of the model, with the likely cause.
        CheckpointError: a dtype does not fit.
    """
    expected = _entries_of(model, source)
    found, result = _named(source, expected, model)
    result.keys = {key: name for key, name in found.items() if key in expected}
    missing = [key for key in expected if key not in found]
    if BIAS in missing and options.logit_bias is not None:
        missing.remove(BIAS)
        result.constants[BIAS] = options.logit_bias
        result.warnings.append(f"logit_bias is {options.logit_bias:g}, as asked: the weights have none")
    for key in [one for one in missing if one in _no_part_of_a_tower(model)]:
        missing.remove(key)
        result.constants[key] = _own_value(model, key)
        result.notes.append(f"{key} is that of the model: the weights of one tower have none")
    unexpected = [name for key, name in found.items() if key not in expected]
    misshapen: dict[str, tuple[Shape, Shape]] = {}
    tables = _tables(model, expected)
    for key, name in result.keys.items():
        have, want = source.entries[name], expected[key]
        if have.shape == want.shape or (have.count == want.count == 1 and key.startswith("logit_")):
            continue
        change = _resampling(key, have.shape, tables.get(key), options) if options.resize else None
        if change is None:
            misshapen[key] = (have.shape, want.shape)
        else:
            result.changes[key], told = change
            result.warnings.append(told)
    if missing or unexpected or misshapen:
        raise _mismatch(source, model, expected, MismatchError("", missing, unexpected, misshapen), tables)
    for key, name in result.keys.items():
        if key.endswith(_COUNT) and source.entries[name].is_float:  # as of a state dict that was cast as a whole
            result.changes[key] = lambda count: count.long()
    _check_dtypes(source, expected, result)
    return result


def names_fit(source: TensorSource, model: DualEncoder) -> bool:
    """Tell whether a checkpoint's names are exactly those of a model, so that its layout is ours."""
    expected, spare = _entries_of(model, source), _no_part_of_a_tower(model)
    found = [_own_name(name, expected) for name in source.entries]
    taken = {key for key in found if key in expected or model.takes(key)}
    return taken - spare == expected.keys() - spare


def _no_part_of_a_tower(model: DualEncoder) -> frozenset[str]:
    """Return the entries that a model of one tower has beside it, and that the weights of a tower may lack."""
    return frozenset(("logit_scale", BIAS)) if (model.visual is None) is not (model.text is None) else frozenset()


def _own_value(model: DualEncoder, key: str) -> float:
    """Return what a model has for an entry without weights; on the meta device that is what its config says."""
    own = cast("Tensor", getattr(model, key))
    return float(getattr(model.config, f"init_{key}") if own.is_meta else own.detach())


def _entries_of(model: DualEncoder, source: TensorSource) -> dict[str, TensorInfo]:
    """Return a model's entries by their published names, or by its modules' own where a checkpoint has all of these.

    A model that was pickled whole has them: projections of attention stand there one by one.
    """
    from zoo_core.nn.state_dict import own_state_dict

    state: Mapping[str, Tensor] = own_state_dict(model)
    if not _holds_all(source.entries, state, model):
        state = cast("Mapping[str, Tensor]", model.state_dict())
    return {key: TensorInfo(str(one.dtype).removeprefix("torch."), tuple(one.shape)) for key, one in state.items()}


def _named(
    source: TensorSource, expected: Mapping[str, TensorInfo], model: DualEncoder
) -> tuple[dict[str, str], LoadPlan]:
    """Return the checkpoint's entries by the names that the model has for them."""
    names = [one for one in source.entries if not one.endswith(COUNTED)]
    prefix = _prefix_that_fits(names, expected, model)
    result = LoadPlan(notes=[f"prefix '{prefix}' taken off every name"] if prefix else [])
    lacking = _lacking_prefix([name.removeprefix(prefix) for name in names], expected, model)
    found: dict[str, str] = {}
    for name in names:
        key = _own_name(lacking + name.removeprefix(prefix), expected)
        if not model.takes(key) and key not in expected:
            continue
        if key in found:
            raise CheckpointError(f"{source.path} holds '{key}' twice: as {found[key]} and as {name}")
        found[key] = name
    return found, result


def _own_name(name: str, expected: Mapping[str, object]) -> str:
    for other in (name, _TEXT + name, name.removeprefix(_TEXT)):
        if other in expected:
            return other
    return name


def _holds_all(names: Iterable[str], expected: Mapping[str, object], model: DualEncoder) -> bool:
    """Tell whether names are all that a model needs, with or without the prefix of a tower."""
    names = list(names)
    needed = expected.keys() - _no_part_of_a_tower(model)
    return needed <= {_own_name(_lacking_prefix(names, expected, model) + name, expected) for name in names}


def _lacking_prefix(names: Sequence[str], expected: Mapping[str, object], model: DualEncoder) -> str:
    """Return `visual.` where names are those of an image tower by itself, and the model has no other."""
    if model.text is not None or any(name.startswith(_VISUAL) for name in names):
        return ""
    return _VISUAL if expected.keys() - _no_part_of_a_tower(model) <= {_VISUAL + name for name in names} else ""


def _prefix_that_fits(names: list[str], expected: Mapping[str, TensorInfo], model: DualEncoder) -> str:
    """Return a prefix that every name has and that no name of the model needs; nothing where there is none."""
    if _holds_all(names, expected, model):
        return ""
    first = names[0] if names else ""
    parts = first.split(".")
    for count in range(1, min(len(parts), 4)):
        prefix = ".".join(parts[:count]) + "."
        if not all(name.startswith(prefix) for name in names):
            break
        if _holds_all([name.removeprefix(prefix) for name in names], expected, model):
            return prefix
    return ""


def _tables(model: DualEncoder, expected: Mapping[str, TensorInfo]) -> dict[str, PositionTable]:
    towers = {"visual.": model.visual, _TEXT: model.text}
    return {
        _own_name(prefix + name, expected): table
        for prefix, tower in towers.items()
        if tower is not None
        for name, table in tower.position_tables().items()
    }


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
    shapes = " to ".join(" x ".join(map(str, one)) for one in (size, new.size))
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


# Explaining


def _mismatch(
    source: TensorSource,
    model: DualEncoder,
    expected: Mapping[str, TensorInfo],
    found: MismatchError,
    tables: Mapping[str, PositionTable],
) -> MismatchError:
    parts = [
        *_grouped("missing", found.missing, model),
        *_grouped("unexpected", found.unexpected, model),
        *(
            f"{key} has shape {list(have)}, expected {list(want)}"
            for key, (have, want) in list(found.misshapen.items())[:4]
        ),
    ]
    if len(found.misshapen) > 4:
        parts.append(f"{len(found.misshapen) - 4} more of another shape")
    cause = _cause(source, model, expected, found, tables)
    text = f"{source.path} does not fit the architecture: {'; '.join(parts)}{f'. {cause}' if cause else ''}"
    return MismatchError(text, found.missing, found.unexpected, found.misshapen)


def _grouped(what: str, keys: Iterable[str], model: DualEncoder) -> list[str]:
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(_part_of(key, model), []).append(key)
    return [f"{len(names)} {what} in {part}: {shown(names, 3)}" for part, names in groups.items()]


def _part_of(key: str, model: DualEncoder) -> str:
    if key.startswith("visual."):
        return "the image tower"
    if key.startswith("logit_"):
        return "the model"
    first = key.partition(".")[0]
    own = first in dict(model.named_children()) and first != "text"
    return f"'{first}'" if own else "the text tower"


def _cause(
    source: TensorSource,
    model: DualEncoder,
    expected: Mapping[str, TensorInfo],
    found: MismatchError,
    tables: Mapping[str, PositionTable],
) -> str:
    """Return the likely cause and what to do; nothing where it is anybody's guess."""
    misshapen = set(found.misshapen)
    if not found.missing and not found.unexpected and misshapen and misshapen <= tables.keys():
        return _about_positions(found.misshapen, tables)
    if not misshapen and [*found.missing, *found.unexpected] == [BIAS]:
        if found.missing:
            return (
                "The weights have no logit bias, so they were not trained with sigmoids: leave it out with "
                "overrides=['init_logit_bias=null'], or give its value with logit_bias="
            )
        return (
            "The weights were trained with sigmoids and a logit bias: take it with overrides=['init_logit_bias=-10'], "
            "whose value the weights replace"
        )
    alone = _tower_alone(source, model)
    if alone:
        other = "text" if alone == "image" else "image"
        return f"The whole {other} tower is missing: build the other one with towers=('{alone}',)"
    if len(found.missing) == len(expected):
        return "No name is one of the model's: the weights are in a layout that no installed plugin knows" + _begins(
            source
        )
    return _better_architecture(source, expected, model)


def _tower_alone(source: TensorSource, model: DualEncoder) -> str:
    """Return the tower that a checkpoint holds and nothing else, where that is not the one of the model; or nothing."""
    from zoo.building.build import skeleton

    names = [name for name in source.entries if not name.endswith(COUNTED)]
    config = getattr(model, "config", None)
    for tower, lacking in (("image", model.text is None), ("text", model.visual is None)):
        if lacking or config is None:
            continue
        alone = skeleton(config, (tower,))
        expected, spare = _entries_of(alone, source), _no_part_of_a_tower(alone)
        if _holds_all(names, expected, alone) and len(set(names) - spare) == len(expected.keys() - spare):
            return tower
    return ""


def _about_positions(misshapen: Mapping[str, tuple[Shape, Shape]], tables: Mapping[str, PositionTable]) -> str:
    told: list[str] = []
    for key, (have, _) in misshapen.items():
        table = tables[key]
        count = have[-2] - table.extra if len(have) > 1 else 0
        grid = (count,) if len(table.size) == 1 else grid_of(count, cast("tuple[int, int]", table.size))
        want = " x ".join(map(str, table.size))
        what = "tokens" if len(table.size) == 1 else "patches"
        told.append(f"{' x '.join(map(str, grid)) if grid and count > 0 else count} {what} for {want}")
    return (
        f"Only the positions differ ({', '.join(told)}): the weights are for another image size or context length; "
        "resample them with resize='bicubic', or build for the size of the weights"
    )


def _begins(source: TensorSource) -> str:
    return f" ({source.container}; names such as {shown(list(source.entries)[:3])})"


def _better_architecture(source: TensorSource, expected: Mapping[str, TensorInfo], model: DualEncoder) -> str:
    shapes, ours = ({key: info.shape for key, info in one.items()} for one in (source.entries, expected))
    best = rank(shapes, limit=1)
    if not best or best[0].fit < 0.5 or best[0].fit <= likeness(shapes, ours):
        return ""
    best_of_towers = {key: shape for key, shape in shapes_of(best[0].names[0]).items() if model.takes(key)}
    if likeness(best_of_towers, ours) == 1:  # it is the one of the model, of which a tower was left out
        return ""
    names = " or ".join(f"'{name}'" for name in best[0].names[:4])
    how = "every entry fits" if math.isclose(best[0].fit, 1.0) else f"{best[0].fit:.0%} of the entries fit"
    return f"The architecture that fits best is {names}: {how}"
