"""Recorder of a run: the file `metrics.jsonl` first, then callbacks.

The first process of a run has one, and the others have none.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.training.record.dispatch import Listener, tell
from zoo.training.record.jsonl import METRICS, MetricsFile
from zoo_core.errors import ZooWarning, reason, warn_caller
from zoo_core.training import Callback, StepRecord

__all__ = ["Recorder"]


def _warn(message: str) -> None:
    warn_caller(message, ZooWarning)


class Recorder:
    """Writes down what happens in a run and tells its callbacks.

    Args:
        folder: that of the run; it is there.
        listeners: callbacks, each with its name (`build_callbacks`, `Listener.of`).
        report: called with what deserves attention; a warning where left out.
    """

    def __init__(self, folder: Path, listeners: Sequence[Listener] = (), report: Callable[[str], None] = _warn) -> None:
        self.folder = folder
        self.listeners = list(listeners)
        self._report = report
        self._file: MetricsFile | None = None
        self._step = 0

    def on_start(self, recipe: Mapping[str, Any], step: int) -> None:
        """Begin, with the recipe as plain data, after `step` steps; the record of later steps is dropped.

        Raises:
            SaveError: the record cannot be written; so for all that follow.
            ZooError: a strict callback failed; so for all that follow.
        """
        self._file = MetricsFile(self.folder / METRICS, step)
        self._write("start", step, {})
        self._tell("on_start", lambda callback: callback.on_start(self.folder, copy.deepcopy(dict(recipe)), step))

    def on_step(self, record: StepRecord) -> None:
        """Record a step that is logged."""
        counts = {"steps": record.steps, "samples": record.samples}
        self._write("step", record.step, counts | dict(record.metrics))
        self._tell("on_step", lambda callback: callback.on_step(replace(record, metrics=dict(record.metrics))))

    def on_evaluate(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record an evaluation after `step` steps."""
        self._write("evaluate", step, metrics)
        self._tell("on_evaluate", lambda callback: callback.on_evaluate(step, dict(metrics)))

    def on_save(self, step: int, folder: Path) -> None:
        """Record a checkpoint that is durable, after `step` steps; a background save may come later than steps."""
        self._write("save", step, {"folder": folder.name})
        self._tell("on_save", lambda callback: callback.on_save(step, folder))

    def on_end(self, step: int, error: BaseException | None = None) -> None:
        """Record the end after `step` steps."""
        if self._file is None:  # it never began
            return
        self._write("end", step, {} if error is None else {"error": reason(error)})
        self._tell("on_end", lambda callback: callback.on_end(step, error))

    def warn(self, step: int, message: str) -> None:
        """Record what deserves attention, and report it."""
        self._write("warning", step, {"message": message})
        self._report(message)

    def _write(self, event: Any, step: int, fields: Mapping[str, Any]) -> None:
        assert self._file is not None, "on_start comes first"
        self._step = step
        self._file.write(event, step, fields)

    def _tell(self, method: str, call: Callable[[Callback], None]) -> None:
        tell(self.listeners, method, call, lambda message: self.warn(self._step, message))
