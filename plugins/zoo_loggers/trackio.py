"""Callback that writes to Trackio."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo_core.training import Callback, StepRecord
from zoo_loggers.config import TrackioConfig

__all__ = ["Trackio"]


class Trackio(Callback):
    """Logs each metric at its step: `train/loss`, and those of evaluators by their own names."""

    def __init__(self, config: TrackioConfig) -> None:
        self.config = config
        self._run: Any = None

    def on_start(self, folder: Path, recipe: Mapping[str, Any], step: int) -> None:
        """Begin the run with the recipe as its config, or go on with the run of its name."""
        options = {"group": self.config.group, "space_id": self.config.space_id}
        self._run = importlib.import_module("trackio").init(
            project=self.config.project,
            name=self.config.name or folder.resolve().name,
            config=dict(recipe),
            resume="allow",
            **{name: value for name, value in options.items() if value is not None},
        )

    def on_step(self, record: StepRecord) -> None:
        """Log the metrics of a step."""
        metrics = {f"train/{name}": value for name, value in record.metrics.items()}
        self._run.log({**metrics, "samples": record.samples}, step=record.step)

    def on_evaluate(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log what was measured."""
        self._run.log(dict(metrics), step=step)

    def on_end(self, step: int, error: BaseException | None) -> None:
        """End the run."""
        if self._run is not None:
            self._run.finish()
