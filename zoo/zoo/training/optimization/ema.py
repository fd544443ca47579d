"""Exponential moving average of the weights of a model.

Of sharded parameters each process averages its own part.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from zoo.training.gradients.wrapped_model import bare_model, drop_gathered
from zoo_core.errors import CheckpointError
from zoo_core.nn.state_dict import is_sharded, own_state_dict, sharded_like

__all__ = ["Ema"]


class Ema:
    """The average of trained parameters, and of buffers such as running statistics; frozen parameters need none.

    Args:
        model: a `DualEncoder`, bare or wrapped; what is to stay frozen is frozen already.
        decay: factor of the average at each step.
        start: steps after which averaging begins; until then the average is the weights themselves.
    """

    def __init__(self, model: Any, decay: float, start: int = 0) -> None:
        self.decay, self.start = decay, start
        self._model = bare_model(model)
        self._averages = {name: value.clone() for name, value in self._live().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take up the weights after an optimizer's step, whose number counts from 1."""
        live, averages = _parts(self._live()), _parts(self._averages)
        moving = [index for index, value in enumerate(live) if value.is_floating_point() and step > self.start]
        others = {*range(len(live))} - {*moving}
        if moving:
            lerp: Any = torch._foreach_lerp_  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
            lerp([averages[index] for index in moving], [live[index] for index in moving], 1 - self.decay)
        for index in others:
            averages[index].copy_(live[index])

    @contextmanager
    def swapped(self) -> Generator[None]:
        """Put the average into the model in a block, and the weights back after it."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages by the names, and in the shapes and shards, that the model has for them."""
        return dict(self._averages)

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Take averages that were saved, whole or sharded.

        Raises:
            CheckpointError: names or shapes are not those of the model.
        """
        differing = sorted(self._averages.keys() ^ state_dict.keys())
        if differing:
            whose = "is missing" if differing[0] in self._averages else "is none of the model's"
            raise CheckpointError(f"average of the weights: '{differing[0]}' {whose} ({len(differing)} such names)")
        for name, average in self._averages.items():
            value = state_dict[name]
            if value.shape != average.shape:
                shapes = f"expected {list(average.shape)}, found {list(value.shape)}"
                raise CheckpointError(f"average of the weights: '{name}' has another shape: {shapes}")
        for name, average in self._averages.items():
            average.copy_(sharded_like(average, state_dict[name]))

    @torch.no_grad()
    def _exchange(self) -> None:
        for value, average in zip(_parts(self._live()), _parts(self._averages), strict=True):
            weights = value.clone()
            value.copy_(average)
            average.copy_(weights)

    def _live(self) -> dict[str, Tensor]:
        drop_gathered(self._model)
        frozen = {name for name, parameter in self._model.named_parameters() if not parameter.requires_grad}
        return {name: value for name, value in own_state_dict(self._model).items() if name not in frozen}


def _parts(values: Mapping[str, Any]) -> list[Tensor]:
    """Return what this process has of each tensor."""
    return [value.to_local() if is_sharded(value) else value for value in values.values()]
