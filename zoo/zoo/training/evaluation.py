"""Evaluation of a run: validation loss and evaluators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from zoo.training.data.loader import Loader
from zoo.training.gradients.batch_loss import BatchLoss
from zoo.training.gradients.wrapped_model import WrappedModel
from zoo_core.boundary.plugin_code import PluginCode

if TYPE_CHECKING:
    from zoo.training.data.open import TrainingData
    from zoo.training.gradients.step import Precision
    from zoo.training.parallel.world import World
    from zoo_core.models.dual_encoder import DualEncoder
    from zoo_core.training import Evaluator

__all__ = ["Evaluation"]


@dataclass(frozen=True)
class Evaluation:
    """What a model is measured with while it trains.

    Attributes:
        world: the processes, which share the work.
        evaluators: by the name of their metrics.
        pairs: held-out pairs for the loss; None where the recipe names none.
        precision: what the loss is computed in.
    """

    world: World
    evaluators: Mapping[str, Evaluator]
    pairs: TrainingData | None
    precision: Precision

    @torch.no_grad()
    def scores(self, model: DualEncoder, module: nn.Module, loss: Any) -> dict[str, float]:
        """Return all metrics, named `evaluator/metric`; the model is in evaluation mode afterwards.

        Args:
            model: the model itself.
            module: what a step calls.
            loss: the loss of the run.
        """
        module.eval()
        scores: dict[str, float] = {}
        if self.pairs is not None:
            scores["validation/loss"] = self._loss(module, loss, self.pairs)
        for name, evaluator in self.evaluators.items():
            with PluginCode(f"evaluator '{name}'", "it failed"):
                measured = evaluator.evaluate(model, rank=self.world.rank, count=self.world.size)
            scores |= {f"{name}/{metric}": float(value) for metric, value in measured.items()}
        return scores

    def _loss(self, module: nn.Module, loss: Any, pairs: TrainingData) -> float:
        """Return the mean over whole batches of the loss of each; what does not fill a batch is left out."""
        steps = pairs.steps_per_epoch or 0
        loader = Loader(
            pairs, rank=self.world.rank, count=self.world.size, steps=steps, workers=0, device=self.world.device
        )
        total = 0.0
        for batch in loader:
            wrapped = WrappedModel.of(module, batch.inputs)
            options = {"ids": batch.ids, "weights": batch.weights}
            batch_loss = BatchLoss(
                loss, wrapped.pair, {name: value for name, value in options.items() if value is not None}
            )
            outputs = wrapped.forward(batch.inputs, self.precision)
            losses = batch_loss.reported(*batch_loss.of_batch(outputs))
            total += float(torch.stack(list(losses.values())).sum())
        return total / steps
