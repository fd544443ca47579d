"""Layer groups of towers, counted from the output as locking counts them.

The model is built on the meta device, so that even the largest one takes no memory and no weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from zoo.building.source import resolve
from zoo.materialize.skeleton import skeleton

if TYPE_CHECKING:
    from torch import nn

    from zoo_core.interfaces import LayerGroup

__all__ = ["Group", "layer_groups"]


@dataclass(frozen=True)
class Group:
    """One layer group: `unlocked_groups = number` leaves it trainable, together with those of lower numbers.

    `names` are those of its parameters, as in `model.named_parameters()`; `trainable` of `parameters` elements are.
    """

    number: int
    names: tuple[str, ...]
    parameters: int
    trainable: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)


def layer_groups(source: str, locks: Mapping[str, int] | None = None) -> dict[str, tuple[Group, ...]]:
    """Return the layer groups of each tower, that of the output first.

    Args:
        source: what `zoo.build` takes, or `NAME:TAG`.
        locks: modalities whose towers are locked but for so many groups; the others are as they were built.

    Returns:
        the groups of each tower, by its section: `vision` and `text`.

    Raises:
        ConfigError: the architecture is wrong.
        UnknownNameError: there is none of that name.
        InputError: a number of groups is negative.
        CapabilityError: a tower can only be locked whole.
    """
    model = skeleton(resolve(source).config)
    for name, unlocked_groups in (locks or {}).items():
        model.lock_tower(name, unlocked_groups)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        model.modalities[name].spec.section: tuple(
            _group(number, group, names) for number, group in enumerate(reversed(tower.layer_groups()), start=1)
        )
        for name, tower in model.towers.items()
    }


def _group(number: int, group: LayerGroup, names: dict[int, str]) -> Group:
    from torch import nn

    parameters: dict[int, nn.Parameter] = {}  # by id, since modules may share one
    for part in group:
        of_part = [part] if isinstance(part, nn.Parameter) else part.parameters()
        parameters |= {id(parameter): parameter for parameter in of_part}
    return Group(
        number=number,
        names=tuple(names[key] for key in parameters),
        parameters=sum(parameter.numel() for parameter in parameters.values()),
        trainable=sum(parameter.numel() for parameter in parameters.values() if parameter.requires_grad),
    )
