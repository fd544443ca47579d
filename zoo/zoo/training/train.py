"""Training from a recipe to a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.training.finish import write_model
from zoo.training.preparation import prepare
from zoo.training.record.progress import Progress
from zoo.training.result import TrainResult
from zoo_core.boundary import checked

if TYPE_CHECKING:
    from zoo.training.recipe.recipe import Recipe
    from zoo_core.training import Callback

__all__ = ["train"]


@checked
def train(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    *,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    resume: str | Path = "auto",
    callbacks: Sequence[Callback] = (),
    show_progress: bool = False,
) -> TrainResult:
    """Train a model as a recipe says, and save it as a folder that `zoo.load` reads.

    A run that was ended before its last step goes on from its last checkpoint when it is called again.

    Args:
        recipe, overrides, out, resume, callbacks: those of `zoo.training.prepare`.
        show_progress: show a bar on standard error, where that is a terminal.

    Returns:
        the folder of the model, its scores and its digest.

    Raises:
        ZooError: as `zoo.training.prepare`.
        TrainingError: gradients were not finite too often in a row, or a process is missing.
    """
    shown = [Progress()] if show_progress else []
    with prepare(recipe, overrides=overrides, out=out, resume=resume, callbacks=[*callbacks, *shown]) as run:
        for batch in run:
            run.step(batch)
        if run.stopped is not None:
            return TrainResult(run.folder, run.done, run.scores, stopped=run.stopped)
        return write_model(run)
