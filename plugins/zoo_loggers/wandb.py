"""Callback that writes to Weights & Biases."""

from __future__ import annotations

import importlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo_core.training import Callback, StepRecord
from zoo_loggers.config import WandbConfig

__all__ = ["Wandb"]

ID_FILE = "wandb-run-id.txt"
"""File in the folder of a run that holds its id, by which a resumed run goes on in the same curves."""


class Wandb(Callback):
    """Logs each metric against `step`: `train/loss`, and those of evaluators by their own names."""

    def __init__(self, config: WandbConfig) -> None:
        self.config = config
        self._run: Any = None

    def on_start(self, folder: Path, recipe: Mapping[str, Any], step: int) -> None:
        """Begin the run with the recipe as its config, or go on with it."""
        wandb = importlib.import_module("wandb")
        path = folder / ID_FILE
        if not path.is_file():
            path.write_text(secrets.token_hex(4), encoding="utf-8")
        config = self.config
        self._run = wandb.init(
            project=config.project,
            entity=config.entity,
            name=config.name or folder.resolve().name,
            group=config.group,
            tags=config.tags or None,
            mode=config.mode,
            dir=str(folder),
            id=path.read_text(encoding="utf-8").strip(),
            resume="allow",
            config=dict(recipe),
            allow_val_change=True,
        )
        # Steps of its own only rise: what a resumed run writes again would be dropped.
        self._run.define_metric("*", step_metric="step")

    def on_step(self, record: StepRecord) -> None:
        """Log the metrics of a step."""
        metrics = {f"train/{name}": value for name, value in record.metrics.items()}
        self._run.log({**metrics, "step": record.step, "samples": record.samples})

    def on_evaluate(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log what was measured."""
        self._run.log({**metrics, "step": step})

    def on_end(self, step: int, error: BaseException | None) -> None:
        """End the run: failed where there is an error."""
        if self._run is not None:
            self._run.finish(exit_code=0 if error is None else 1)
