"""Batches of training, and the bad samples that were met on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from zoo.training.data.order import Key
from zoo_core.errors import DataError

__all__ = ["BadSample", "BadSampleCount", "Batch"]

COUNTS_FROM = 1_000
"""Samples after which the share of bad ones says something."""


@dataclass(frozen=True)
class BadSample:
    """A sample that could not be used, where it stands, and why."""

    key: Key
    location: str
    reason: str


@dataclass(frozen=True)
class Batch:
    """Samples of one step and one process.

    Attributes:
        step: number of the step, from 0.
        inputs: a batch for each modality, as the model takes it.
        ids: int64 `[B]`; rows with one id are positives of each other. None where each row is its own.
        weights: float32 `[B]`, factors of each row's part of the loss; None where all are 1.
        keys: the row behind each sample.
        bad: rows that could not be used, and were replaced.
        wait: seconds that were spent waiting for the batch.
    """

    step: int
    inputs: dict[str, Any]
    ids: Tensor | None
    weights: Tensor | None
    keys: list[Key]
    bad: list[BadSample] = field(default_factory=list[BadSample])
    wait: float = 0.0

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on a device; from pinned memory it is copied while the CPU goes on."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Return the batch in memory that a GPU can read by itself; data loaders call this."""
        return self._with(lambda tensor: tensor.pin_memory())

    def _with(self, change: Callable[[Tensor], Tensor]) -> Batch:
        ids, weights = (None if tensor is None else change(tensor) for tensor in (self.ids, self.weights))
        inputs = {name: _changed(value, change) for name, value in self.inputs.items()}
        return replace(self, inputs=inputs, ids=ids, weights=weights)


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Mapping):
        return {key: change(tensor) for key, tensor in cast("Mapping[str, Tensor]", value).items()}
    return change(value)


class BadSampleCount:
    """Counts bad samples, and ends a run that meets too many.

    Args:
        limit: share of the samples that may be bad, once there were a thousand.
    """

    def __init__(self, limit: float) -> None:
        self.limit, self.bad, self.seen = limit, 0, 0

    def add(self, batch: Batch) -> None:
        """Count the samples of a batch.

        Raises:
            DataError: too many were bad; the message shows one of them.
        """
        self.seen += len(batch)
        self.bad += len(batch.bad)
        if batch.bad and self.seen >= COUNTS_FROM and self.bad > self.limit * self.seen:
            last = batch.bad[-1]
            raise DataError(
                f"{self.bad:,} of {self.seen:,} samples cannot be used, more than data.bad_samples.limit allows "
                f"({self.limit:g}); the last of them: {last.location}: {last.reason}. `zoo data check` lists them"
            )
