"""Callback that writes event files of TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch.utils.tensorboard import SummaryWriter

from zoo_core.training import Callback, StepRecord
from zoo_loggers.config import TensorBoardConfig

__all__ = ["TensorBoard"]


class TensorBoard(Callback):
    """Writes each metric as a scalar: `train/loss`, and those of evaluators by their own names.

    After a resume TensorBoard drops what an earlier process wrote beyond the step that the run goes on from.
    """

    def __init__(self, config: TensorBoardConfig) -> None:
        self.config = config
        self._writer: Any = None

    def on_start(self, folder: Path, recipe: Mapping[str, Any], step: int) -> None:
        """Open an event file, and write the recipe into it as text."""
        target = folder / "tensorboard" if self.config.folder is None else Path(self.config.folder)
        self._writer = SummaryWriter(str(target), purge_step=step + 1)
        text = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)
        self._writer.add_text("recipe", f"```yaml\n{text}```", step)

    def on_step(self, record: StepRecord) -> None:
        """Write the metrics of a step."""
        self._write(record.step, {f"train/{name}": value for name, value in record.metrics.items()})

    def on_evaluate(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write what was measured, and bring all to the disk."""
        self._write(step, metrics)
        self._writer.flush()

    def on_end(self, step: int, error: BaseException | None) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()

    def _write(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
