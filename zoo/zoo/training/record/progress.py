"""A progress bar of a run on standard error, where somebody is there to see it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_core.training import Callback, StepRecord

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

__all__ = ["Progress"]


class Progress(Callback):
    """Shows the steps that are done, the time that is left, loss, rate and waiting for data.

    What evaluations measure stays above the bar. Where standard error is no terminal, nothing is printed.

    Args:
        console: where to print; standard error where None.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console
        self._bar: Bar | None = None
        self._task: Any = None

    def on_start(self, folder: Path, recipe: Mapping[str, Any], step: int) -> None:
        """Show the bar."""
        if self._console is None and not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
        console = self._console or Console(stderr=True)
        # What goes to a file stays there; on a terminal it has to stay above the bar.
        is_shared = sys.stdout.isatty()
        self._bar = Bar(TextColumn("training"), *columns, console=console, transient=True, redirect_stdout=is_shared)
        self._task = self._bar.add_task("training", total=None, completed=step, note="")
        self._bar.start()

    def on_step(self, record: StepRecord) -> None:
        """Show a step that is logged."""
        self.advance(record.step, record.steps, _note(record.metrics))

    def advance(self, step: int, steps: int, note: str | None = None) -> None:
        """Show that `step` of `steps` are done: for steps in between, which are not logged."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, total=steps)
            if note is not None:
                self._bar.update(self._task, note=note)

    def on_evaluate(self, step: int, metrics: Mapping[str, float]) -> None:
        """Print what was measured."""
        if self._bar is not None:
            measured = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            self._bar.console.print(f"step {step:,}: {measured}", markup=False, highlight=False)

    def on_end(self, step: int, error: BaseException | None) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


_SHOWN = {
    "loss": "loss {:.4g}",
    "samples_per_second": "{:,.4g} samples/s",
    "data_wait": "{:.0%} waiting for data",
}


def _note(metrics: Mapping[str, float]) -> str:
    return ", ".join(text.format(metrics[name]) for name, text in _SHOWN.items() if name in metrics)
