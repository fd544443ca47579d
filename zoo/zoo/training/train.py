"""Training from a recipe to a model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from zoo.training.finish import write_model
from zoo.training.preflight import Report, preflight
from zoo.training.preparation import prepare
from zoo.training.recipe.recipe import Recipe
from zoo.training.record.curves import draw_curves
from zoo.training.record.progress import Progress
from zoo.training.result import TrainResult
from zoo_core.boundary import checked
from zoo_core.errors import MissingDependencyError, SampleError
from zoo_core.training import Dataset

if TYPE_CHECKING:
    from zoo.training.data.open import TrainingData
    from zoo_core.training import Callback

__all__ = ["dry_run", "train"]

CAPTIONS = 256
"""Captions that a dry run tokenizes."""


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
        result = write_model(run)
        if run.world.is_first:
            with suppress(MissingDependencyError):  # matplotlib, which comes with the extra `demo`
                draw_curves(run.folder)
        return result


@checked
def dry_run(recipe: str | Path | Mapping[str, Any] | Recipe, *, overrides: Sequence[str] = ()) -> Report:
    """Check everything, compute the gradients of three real batches, and report what was seen; nothing is left.

    Raises:
        ZooError: as `zoo.training.prepare`.
    """
    with TemporaryDirectory() as folder, prepare(recipe, overrides=overrides, out=Path(folder) / "run") as run:
        trained = {id(parameter) for group in run.optimizer.param_groups for parameter in group["params"]}
        tensors = [*run.model.parameters(), *run.model.buffers()]
        is_contrastive = run.recipe.loss.component.rpartition("/")[2] == "contrastive"
        return preflight(
            run.optimizer.param_groups,
            step=lambda batch: float(run.gradient(batch).loss),
            batches=run.loader,
            device=run.world.device,
            steps=run.steps,
            batch=run.recipe.batch.size,
            frozen=[tensor for tensor in tensors if id(tensor) not in trained],
            chance=math.log(run.recipe.batch.size) if is_contrastive else None,
            captions=list(_captions(run.data)),
            tokenizer=run.model.tokenizer,
        )


def _captions(data: TrainingData) -> Iterator[str]:
    """Yield some texts of the data sets, evenly spaced; those that cannot be read are left out."""
    for source in data.sources:
        if not isinstance(source, Dataset):
            continue
        for index in range(0, len(source), max(1, len(source) // CAPTIONS)):
            with suppress(SampleError):
                yield from (text for text in source[index].inputs.get("text", ())[:1] if isinstance(text, str))
