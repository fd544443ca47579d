"""Explanation of checkpoints that do not fit: likely cause and fix."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from zoo.catalog.state_dict_shapes import Shape, shapes_of
from zoo.checkpoints.names import LOGIT_BIAS, entries_of, holds_all, optional_keys
from zoo.checkpoints.ranking import COUNTED, likeness, rank
from zoo.materialize.skeleton import skeleton
from zoo_core.checkpoints import TensorInfo, TensorSource, shown
from zoo_core.errors import MismatchError
from zoo_core.nn.position_embedding import PositionTable, grid_of

if TYPE_CHECKING:
    from zoo_core.config import ModelConfig
    from zoo_core.models.dual_encoder import DualEncoder

__all__ = ["mismatch_error"]

SHOWN_SHAPES = 4
"""Entries of another shape that are named; the others are counted."""


@dataclass(frozen=True)
class _Mismatch:
    """A checkpoint, a model, and the entries in which they differ; shapes are those of the file and of the model."""

    source: TensorSource
    model: DualEncoder
    expected: Mapping[str, TensorInfo]
    position_tables: Mapping[str, PositionTable]
    missing: Sequence[str]
    unexpected: Sequence[str]
    misshapen: Mapping[str, tuple[Shape, Shape]]


def mismatch_error(
    source: TensorSource,
    model: DualEncoder,
    expected: Mapping[str, TensorInfo],
    position_tables: Mapping[str, PositionTable],
    missing: Sequence[str],
    unexpected: Sequence[str],
    misshapen: Mapping[str, tuple[Shape, Shape]],
) -> MismatchError:
    """Return the error of a checkpoint that does not fit a model: grouped by part, with the likely cause.

    Args:
        source: the checkpoint.
        model: the model.
        expected: the entries of the model.
        position_tables: the position embeddings among them, which `resize` would change.
        missing: entries that the checkpoint lacks.
        unexpected: entries that only the checkpoint has.
        misshapen: entries of another shape, with the shape in the file and that of the model.
    """
    mismatch = _Mismatch(source, model, expected, position_tables, missing, unexpected, misshapen)
    differences = [
        *_grouped("missing", missing, model),
        *_grouped("unexpected", unexpected, model),
        *(
            f"{key} has shape {list(have)}, expected {list(want)}"
            for key, (have, want) in list(misshapen.items())[:SHOWN_SHAPES]
        ),
    ]
    if len(misshapen) > SHOWN_SHAPES:
        differences.append(f"{len(misshapen) - SHOWN_SHAPES} more of another shape")
    advice = next(filter(None, (cause(mismatch) for cause in _CAUSES)), "")
    text = f"{source.path} does not fit the architecture: {'; '.join(differences)}{f'. {advice}' if advice else ''}"
    return MismatchError(text, missing, unexpected, misshapen)


def _grouped(what: str, keys: Iterable[str], model: DualEncoder) -> list[str]:
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(_part_of(key, model), []).append(key)
    return [f"{len(names)} {what} in {part}: {shown(names, 3)}" for part, names in groups.items()]


def _part_of(key: str, model: DualEncoder) -> str:
    for name, prefix in model.prefixes.items():
        if key.startswith(prefix):
            return f"the {name} tower"
    if key.startswith("logit_"):
        return "the model"
    first = key.partition(".")[0]
    # published checkpoints of CLIP hold the text tower at the top
    is_other = first in dict(model.named_children()) or "text" not in model.modalities
    return f"'{first}'" if is_other else "the text tower"


# Likely causes: each returns its advice, or nothing where it is not the one


def other_size(mismatch: _Mismatch) -> str:
    """Only position embeddings differ in shape: the weights are for other images or texts."""
    tables, differing = mismatch.position_tables, mismatch.misshapen
    if mismatch.missing or mismatch.unexpected or not differing or not differing.keys() <= tables.keys():
        return ""
    sizes: list[str] = []
    for key, (have, _) in differing.items():
        table = tables[key]
        count = have[-2] - table.extra if len(have) > 1 else 0
        grid = (count,) if len(table.size) == 1 else grid_of(count, cast("tuple[int, int]", table.size))
        unit = "tokens" if len(table.size) == 1 else "patches"
        sizes.append(f"{_by(grid) if grid and count > 0 else count} {unit} for {_by(table.size)}")
    return (
        f"Only the positions differ ({', '.join(sizes)}): the weights are for another image size or context length; "
        "resample them with resize='bicubic', or build for the size of the weights"
    )


def _by(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))


def other_loss(mismatch: _Mismatch) -> str:
    """Only the logit bias is missing or too much: one side is of a sigmoid loss, the other of a softmax."""
    if mismatch.misshapen or [*mismatch.missing, *mismatch.unexpected] != [LOGIT_BIAS]:
        return ""
    if mismatch.missing:
        return (
            "The weights have no logit bias, so they were not trained with sigmoids: leave it out with "
            "overrides=['init_logit_bias=null'], or give its value with logit_bias="
        )
    return (
        "The weights were trained with sigmoids and a logit bias: take it with overrides=['init_logit_bias=-10'], "
        "whose value the weights replace"
    )


def one_tower(mismatch: _Mismatch) -> str:
    """The checkpoint holds all of one tower and nothing else, and that is not what the model has."""
    source, model = mismatch.source, mismatch.model
    names = {name for name in source.entries if not name.endswith(COUNTED)}
    config: ModelConfig | None = getattr(model, "config", None)
    for tower in model.modalities:
        if config is None or list(model.towers) == [tower]:
            continue
        other = " and ".join(name for name in model.modalities if name != tower)
        alone = skeleton(config, (tower,))
        expected, optional = entries_of(alone, source), optional_keys(alone)
        if holds_all(names, expected, alone) and len(names - optional) == len(expected.keys() - optional):
            return f"The whole {other} tower is missing: build the other one with towers=('{tower}',)"
    return ""


def other_format(mismatch: _Mismatch) -> str:
    """No name is one of the model's."""
    source = mismatch.source
    if len(mismatch.missing) != len(mismatch.expected):
        return ""
    return (
        "No name is one of the model's: the weights are in a format that no installed plugin knows "
        f"({source.container}; names such as {shown(list(source.entries)[:3])})"
    )


def other_architecture(mismatch: _Mismatch) -> str:
    """An architecture of zoo fits better than the one of the model."""
    shapes, own_shapes = (
        {key: info.shape for key, info in entries.items()} for entries in (mismatch.source.entries, mismatch.expected)
    )
    best = rank(shapes, limit=1)
    if not best or best[0].fit < 0.5 or best[0].fit <= likeness(shapes, own_shapes):
        return ""
    best_shapes = {key: shape for key, shape in shapes_of(best[0].names[0]).items() if mismatch.model.accepts_key(key)}
    if likeness(best_shapes, own_shapes) == 1:  # it is the one of the model, of which a tower was left out
        return ""
    names = " or ".join(f"'{name}'" for name in best[0].names[:4])
    how = "every entry fits" if math.isclose(best[0].fit, 1.0) else f"{best[0].fit:.0%} of the entries fit"
    return f"The architecture that fits best is {names}: {how}"


_CAUSES = (other_size, other_loss, one_tower, other_format, other_architecture)
"""In this order: each later one would also explain what an earlier one does, less exactly."""
