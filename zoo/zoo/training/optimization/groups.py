"""Parameter groups: learning rate and weight decay of each parameter.

Biases, norms, scales and what towers name (`no_weight_decay`) are not decayed. With `layer_decay` each layer group of a
tower has that share of the learning rate of the one after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from zoo.training.gradients.wrapped_model import bare_model
from zoo_core.config import OptimizerConfig
from zoo_core.errors import ConfigError, Problem, did_you_mean, one_of
from zoo_core.models.dual_encoder import DualEncoder

__all__ = ["group_table", "parameter_groups"]

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, _BatchNorm)


@dataclass(frozen=True)
class _Place:
    """Where a parameter stands: its tower, and the layer group there, 1 being that of the output."""

    tower: str | None = None
    group: int | None = None


@dataclass
class _Rules:
    """What decides about a parameter."""

    config: OptimizerConfig
    places: Mapping[int, _Place]
    undecayed: set[int] = field(default_factory=set[int])

    def group_of(self, name: str, parameter: nn.Parameter) -> tuple[_Place, float, float]:
        """Return the place of a parameter, its learning rate and its weight decay."""
        place, config = self.places.get(id(parameter), _Place()), self.config
        lr = config.lr
        if place.group is not None and place.tower is not None:
            lr *= config.layer_decay[place.tower] ** (place.group - 1)
        scales = [scale for pattern, scale in config.lr_scale.items() if fnmatchcase(name, pattern)]
        lr *= scales[-1] if scales else 1.0
        is_bias = any(part.endswith("bias") for part in name.split("."))
        decays = parameter.ndim > 1 and not is_bias and id(parameter) not in self.undecayed
        return place, lr, config.weight_decay if decays else 0.0


def parameter_groups(model: Any, optimizer: OptimizerConfig) -> list[dict[str, Any]]:
    """Return the groups of an optimizer's parameters; frozen parameters are in none.

    Args:
        model: a `DualEncoder`, bare or wrapped; what is to stay frozen is frozen already.
        optimizer: the config of the optimizer.

    Returns:
        a dict for each group: `params`, their `names`, `lr`, `initial_lr` (the same, which schedules multiply),
        `weight_decay`, the `tower` (a modality; None for what belongs to no tower) and the layer `group` (None where
        its tower has no layer decay).

    Raises:
        ConfigError: a pattern fits no parameter, or a tower is not there or has no layer groups.
    """
    bare = bare_model(model)
    named = dict(bare.named_parameters())
    _check_patterns(optimizer, named)
    rules = _Rules(optimizer, _places(bare, optimizer), _undecayed(bare, named))
    groups: dict[tuple[_Place, float, float], dict[str, Any]] = {}
    for name, parameter in named.items():
        if parameter.requires_grad:
            place, lr, weight_decay = key = rules.group_of(name, parameter)
            rates = {"lr": lr, "initial_lr": lr, "weight_decay": weight_decay}
            where = {"tower": place.tower, "group": place.group}
            group = groups.setdefault(key, {"params": [], "names": [], **rates, **where})
            group["params"].append(parameter)
            group["names"].append(name)
    return list(groups.values())


def group_table(groups: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return parameter groups as rows of text below a header."""
    rows = [("tower", "layer group", "learning rate", "weight decay", "tensors", "parameters")]
    for group in groups:
        number = "all" if group["group"] is None else str(group["group"])
        tensors, elements = len(group["params"]), sum(parameter.numel() for parameter in group["params"])
        rates = (f"{group['initial_lr']:.4g}", f"{group['weight_decay']:.4g}")
        rows.append((group["tower"] or "none", number, *rates, f"{tensors:,}", f"{elements:,}"))
    return rows


def _places(model: DualEncoder, config: OptimizerConfig) -> dict[int, _Place]:
    """Return the place of each parameter of a tower, by identity."""
    places: dict[int, _Place] = {}
    for name in config.layer_decay:
        key = f"layer_decay.{name}"
        if name not in model.towers:
            raise ConfigError(Problem(f"the model has no such tower; {one_of(model.towers)}", key, "optimizer"))
        if len(model.towers[name].layer_groups()) == 1:
            tower = type(model.towers[name]).__name__
            raise ConfigError(Problem(f"{tower} has no layer groups; leave it out", key, "optimizer"))
    for name, tower in model.towers.items():
        is_layered = name in config.layer_decay
        places |= {id(parameter): _Place(name) for parameter in tower.parameters()}
        for number, group in enumerate(reversed(tower.layer_groups()), start=1) if is_layered else ():
            for part in group:
                for parameter in [part] if isinstance(part, nn.Parameter) else part.parameters():
                    places[id(parameter)] = _Place(name, number)
    return places


def _undecayed(model: DualEncoder, named: Mapping[str, nn.Parameter]) -> set[int]:
    """Return which parameters are named by towers, or stand in norms, by identity."""
    names = model.no_weight_decay()
    of_norms = [
        parameter
        for module in model.modules()
        if isinstance(module, NORMS)
        for parameter in module.parameters(recurse=False)
    ]
    return {id(parameter) for parameter in (*of_norms, *(named[name] for name in names if name in named))}


def _check_patterns(config: OptimizerConfig, names: Mapping[str, nn.Parameter]) -> None:
    for pattern in config.lr_scale:
        if not any(fnmatchcase(name, pattern) for name in names):
            parts = [name.split(".") for name in names]
            rooms = {".".join([*part[:depth], "*"]) for part in parts for depth in range(1, min(len(part), 4))}
            near = did_you_mean(pattern, {*names, *rooms})
            raise ConfigError(Problem(f"fits no parameter of the model{near}", f"lr_scale.{pattern}", "optimizer"))
