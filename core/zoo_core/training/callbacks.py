"""Interface of callbacks: what is told of a run while it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Callback", "StepRecord"]


@dataclass(frozen=True)
class StepRecord:
    """What one training step did.

    Attributes:
        step: number of the step, from 1.
        steps: number of steps of the run.
        samples: samples that the run has seen by now, over all processes.
        metrics: `loss`, the parts of the loss, `lr`, `logit_scale`, `grad_norm`, `samples_per_second`, `data_wait`
            (share of the time spent waiting for data) and whatever else was measured.
    """

    step: int
    steps: int
    samples: int
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])


class Callback:
    """Is told what happens in a run, in its first process alone. Each method may be left out.

    Built by a factory `(config) -> Callback`, with a config that derives from `zoo_core.config.CallbackConfig`. An
    error in a callback is reported once and does not stop the run, unless its config says `strict: true`.
    """

    def on_start(self, folder: Path, recipe: Mapping[str, Any], step: int) -> None:
        """Begin: the folder of the run, its recipe as plain data, and the steps that are done already."""

    def on_step(self, record: StepRecord) -> None:
        """A step is done, and it is one of those that are logged."""

    def on_evaluate(self, step: int, metrics: Mapping[str, float]) -> None:
        """The model was evaluated after `step` steps; metrics are named `evaluator/metric`."""

    def on_save(self, step: int, folder: Path) -> None:
        """A checkpoint is durable."""

    def on_end(self, step: int, error: BaseException | None) -> None:
        """The run is over: finished where `error` is None."""
