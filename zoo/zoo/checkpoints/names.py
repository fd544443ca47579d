"""Names of the entries of checkpoints, as a model has them.

Names may stand with or without `text.`, and those of a tower by itself without its prefix, such as `visual.`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from zoo_core.checkpoints import TensorInfo, TensorSource
from zoo_core.nn.state_dict import own_state_dict

if TYPE_CHECKING:
    from torch import Tensor

    from zoo_core.models.dual_encoder import DualEncoder

__all__ = [
    "LOGIT_BIAS",
    "entries_of",
    "holds_all",
    "lacking_prefix",
    "optional_keys",
    "own_name",
    "prefix_that_fits",
]

LOGIT_BIAS = "logit_bias"
TEXT = "text."
"""Prefix that published checkpoints of CLIP leave out."""


def optional_keys(model: DualEncoder) -> frozenset[str]:
    """Return the entries that a model of one tower has beside it, and that the weights of a tower may lack."""
    return frozenset() if model.is_whole or not model.towers else frozenset(("logit_scale", LOGIT_BIAS))


def entries_of(model: DualEncoder, source: TensorSource) -> dict[str, TensorInfo]:
    """Return a model's entries by their published names, or by its modules' own where a checkpoint has all of these.

    A model that was pickled whole has them: projections of attention stand there one by one.
    """
    state: Mapping[str, Tensor] = own_state_dict(model)
    if not holds_all(source.entries, state, model):
        state = cast("Mapping[str, Tensor]", model.state_dict())
    return {
        key: TensorInfo(str(value.dtype).removeprefix("torch."), tuple(value.shape)) for key, value in state.items()
    }


def own_name(name: str, expected: Container[str]) -> str:
    """Return the name that a model has for an entry, which may differ in `text.`; one that it has not stays."""
    for other in (name, TEXT + name, name.removeprefix(TEXT)):
        if other in expected:
            return other
    return name


def holds_all(names: Iterable[str], expected: Mapping[str, object], model: DualEncoder) -> bool:
    """Tell whether names are all that a model needs, with or without the prefix of a tower."""
    names = list(names)
    needed = expected.keys() - optional_keys(model)
    return needed <= {own_name(lacking_prefix(names, expected, model) + name, expected) for name in names}


def lacking_prefix(names: Sequence[str], expected: Mapping[str, object], model: DualEncoder) -> str:
    """Return the prefix of the only tower of a model, such as `visual.`, where names are those of a tower by itself."""
    prefixes = [model.prefixes[tower] for tower in model.towers]
    if len(prefixes) != 1 or any(name.startswith(prefixes[0]) for name in names):
        return ""
    return prefixes[0] if expected.keys() - optional_keys(model) <= {prefixes[0] + name for name in names} else ""


def prefix_that_fits(names: list[str], expected: Mapping[str, TensorInfo], model: DualEncoder) -> str:
    """Return a prefix that every name has and that no name of the model needs; nothing where there is none."""
    if holds_all(names, expected, model):
        return ""
    first = names[0] if names else ""
    parts = first.split(".")
    for count in range(1, min(len(parts), 4)):
        prefix = ".".join(parts[:count]) + "."
        if not all(name.startswith(prefix) for name in names):
            break
        if holds_all([name.removeprefix(prefix) for name in names], expected, model):
            return prefix
    return ""
