"""Muon for matrices beside AdamW for all other parameters, as one optimizer.

Both halves share the groups and the state of the whole, so that it is saved, loaded and scheduled like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from zoo_core.errors import MissingDependencyError
from zoo_optimizers.config import MuonConfig
from zoo_optimizers.torch_optimizers import is_fused

__all__ = ["MuonWithAdamW"]


class MuonWithAdamW(Optimizer):
    """One optimizer whose groups say by `algorithm` which half updates them.

    Args:
        config: options of both.
        groups: parameters with their `names`; a group of both kinds becomes two.

    Raises:
        MissingDependencyError: torch is too old to have Muon.
    """

    def __init__(self, config: MuonConfig, *, groups: Sequence[dict[str, Any]]) -> None:
        muon: Any = getattr(torch.optim, "Muon", None)
        if muon is None:
            raise MissingDependencyError(f"muon needs torch 2.9, found {torch.__version__}; run: pip install -U torch")
        divided = [part for group in groups for part in _divided(group, config.adamw)]
        halves: dict[str, list[dict[str, Any]]] = {"muon": [], "adamw": []}
        for group in divided:
            halves[group["algorithm"]].append(group)
        options: dict[str, Any] = {
            "nesterov": config.nesterov,
            "ns_steps": config.steps,
            "adjust_lr_fn": config.adjust_lr,
        }
        self._halves: dict[str, Optimizer] = {}
        if halves["muon"]:
            self._halves["muon"] = muon(halves["muon"], lr=config.lr, momentum=config.momentum, **options)
        if halves["adamw"]:
            fused = is_fused("auto", halves["adamw"])
            self._halves["adamw"] = torch.optim.AdamW(
                halves["adamw"], lr=config.lr, betas=config.betas, eps=config.eps, fused=fused
            )
        # the halves have completed their groups with their own options
        super().__init__([group for half in self._halves.values() for group in half.param_groups], {"lr": config.lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take a step of both halves."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for name, half in self._halves.items():
            half.state = self.state  # loading a state dict replaces both
            half.param_groups = [group for group in self.param_groups if group["algorithm"] == name]
            half.step()
        return loss


def _divided(group: dict[str, Any], patterns: Sequence[str]) -> list[dict[str, Any]]:
    """Return a group as one of matrices and one of all other parameters; an empty one is left out."""
    members: dict[str, list[tuple[Tensor, str]]] = {"muon": [], "adamw": []}
    for parameter, name in zip(group["params"], group["names"], strict=True):
        is_matrix = parameter.ndim == 2 and not any(fnmatchcase(name, pattern) for pattern in patterns)
        members["muon" if is_matrix else "adamw"].append((parameter, name))
    return [
        {
            **group,
            "params": [parameter for parameter, _ in of_half],
            "names": [name for _, name in of_half],
            "algorithm": half,
        }
        for half, of_half in members.items()
        if of_half
    ]
