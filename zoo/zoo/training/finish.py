"""The end of a run: an ordinary saved model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from zoo.building.build import build
from zoo.building.load import verify
from zoo.saved.manifest import read_origin
from zoo.saved.write import write_folder
from zoo.training.result import TrainResult
from zoo_core.errors import CheckpointError
from zoo_core.nn.state_dict import is_sharded

if TYPE_CHECKING:
    from pathlib import Path

    from zoo.training.run import Run
    from zoo_core.models.dual_encoder import DualEncoder

__all__ = ["TRAINING", "write_model"]

TRAINING = "training.json"


def write_model(run: Run) -> TrainResult:
    """Write the model of a run to its folder, with what it was trained on, and check it by its probe.

    All processes call this; the first one writes.

    Raises:
        SaveError: the folder cannot be written.
        CheckpointError: what was written does not give the features that the model gave.
    """
    folder = run.folder / "model"
    metrics = dict(run.scores)
    if run.result is not None:
        metrics["loss"] = float(run.result.loss)
    digest = ""
    with run.weights_in_use():
        model = _whole(run.model)
        if run.world.is_first:
            digest = _write(run, model, folder, metrics)
    run.world.barrier()
    return TrainResult(folder, run.done, metrics, digest)


def _write(run: Run, model: DualEncoder, folder: Path, metrics: dict[str, float]) -> str:
    averaged = run.ema is not None and run.recipe.evaluate.use == "ema"
    facts: dict[str, Any] = {
        "step": run.done,
        "samples": run.done * run.recipe.batch.size,
        "weights": "ema" if averaged else "model",
        "metrics": metrics,
        "parent": run.recipe.init.pretrained,
        "processes": run.world.size,
        **run.facts,
        "recipe_digest": run.facts["recipe"],
        "recipe": run.recipe.data(),
    }
    is_training = model.training
    model.eval()
    write_folder(model, folder, extra={TRAINING: json.dumps(facts, indent=1) + "\n"})
    model.train(is_training)
    wrong = [finding for finding in verify(folder) if finding.ok is False]
    if wrong:
        raise CheckpointError(f"{folder} is not the model that was trained: {wrong[0].part} {wrong[0].detail}")
    return read_origin(folder).digest


def _whole(model: DualEncoder) -> DualEncoder:
    """Return a model with whole tensors: the model itself, or a copy of one that is sharded."""
    if not any(is_sharded(parameter) for parameter in model.parameters()):
        return model
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    entries = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if torch.distributed.get_rank() > 0:
        return model
    assert model.config is not None
    whole = build(model.config)
    whole.load_state_dict(entries)
    return whole
