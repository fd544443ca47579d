"""Runs in processes of their own, which a signal ends at a moment that a test chooses.

The server of the processes has torch and zoo imported, so that each starts in the time of a fork.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zoo_core.training import Callback, StepRecord

__all__ = ["run_until", "run_zoo"]

PRELOADED = ["zoo.training.train", "zoo.training.data.loader", "zoo.cli.commands", "torch.distributed.checkpoint"]


class _EndAtStep(Callback):
    """Sends a signal to this process when a step is logged."""

    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number

    def on_step(self, record: StepRecord) -> None:
        if record.step == self.step:
            os.kill(os.getpid(), self.number)


def run_until(recipe: dict[str, Any], folder: Path, moment: str | None = None, *, number: int = signal.SIGKILL) -> int:
    """Train in another process, and return its exit status, negative for a signal.

    Args:
        recipe, folder: those of `zoo.train`.
        moment: when the process gets a signal: `step 3`, when that step is logged, or `disk 7`, before it makes
            something durable or renames it for the seventh time. None lets it come to its end.
        number: the signal.
    """
    return _in_process(_train, recipe, str(folder), moment, number)


def run_zoo(*arguments: str, moment: str | None = None, number: int = signal.SIGTERM) -> int:
    """Run the program in another process, and return its exit status."""
    return _in_process(_program, arguments, moment, number)


def _in_process(function: Callable[..., None], *arguments: Any) -> int:
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=function, args=arguments)
    process.start()
    process.join(240)
    status = process.exitcode
    process.kill()
    return status


def _hasten() -> None:
    """Have workers look more often whether the process that trains is alive: until then nobody sees it as ended."""
    from torch.utils.data._utils import worker

    worker.MP_STATUS_CHECK_INTERVAL = 0.1


def _train(recipe: dict[str, Any], folder: str, moment: str | None, number: int) -> None:
    import zoo

    _hasten()
    zoo.train(recipe, out=folder, callbacks=_callbacks(moment, number))


def _program(arguments: tuple[str, ...], moment: str | None, number: int) -> None:
    from zoo.cli.app import main
    from zoo.training.record.recorder import Recorder

    _hasten()
    on_step, callbacks = Recorder.on_step, _callbacks(moment, number)

    def told(self: Recorder, record: StepRecord) -> None:
        on_step(self, record)
        for callback in callbacks:
            callback.on_step(record)

    Recorder.on_step = told
    sys.exit(main(arguments))


def _callbacks(moment: str | None, number: int) -> list[Callback]:
    kind, _, when = (moment or "").partition(" ")
    if kind == "step":
        return [_EndAtStep(int(when), number)]
    if kind == "disk":
        _end_at_write(int(when), number)
    return []


def _end_at_write(when: int, number: int) -> None:
    """Have the process get a signal before it makes something durable, or renames it, for the n-th time."""
    count = 0

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == when:
                os.kill(os.getpid(), number)
            return original(*args, **options)

        return call

    os.fsync = counted(os.fsync)
    os.rename, os.replace = counted(os.rename), counted(os.replace)
