"""The loss of a batch, over pairs and over single samples."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from zoo_core.errors import InputError, describe
from zoo_core.interfaces import AdditiveLoss

__all__ = ["BatchLoss"]


@dataclass(frozen=True)
class BatchLoss:
    """A loss, and what belongs to the batch beside its inputs.

    Attributes:
        loss: as in `zoo_core.interfaces.Loss`, or an `AdditiveLoss`.
        pair: names of the two modalities.
        options: `ids` and `weights` of the pairs, where there are any.
    """

    loss: Any
    pair: tuple[str, str]
    options: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        loss = self.loss
        if not callable(loss):
            raise InputError(f"expected a loss of zoo.loss, or any function of features, found {describe(loss)}")
        call: Any = loss.pair_losses if isinstance(loss, AdditiveLoss) else getattr(loss, "forward", loss)
        for name in self.options:
            parameters = inspect.signature(call).parameters
            if name not in parameters and all(one.kind is not one.VAR_KEYWORD for one in parameters.values()):
                raise InputError(f"the loss {type(self.loss).__name__} takes no {name} of pairs; leave them out")

    @property
    def scores_samples(self) -> bool:
        """Whether samples add something of their own, for which a model has to see both of their inputs at once."""
        return isinstance(self.loss, AdditiveLoss)

    def of_pairs(self, outputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the losses over pairs by name: of one loss alone as `loss`."""
        features = [outputs[f"{name}_features"] for name in self.pair]
        scale = {name: outputs[name] for name in ("logit_scale", "logit_bias") if outputs.get(name) is not None}
        if isinstance(self.loss, AdditiveLoss):
            return dict(self.loss.pair_losses(*features, **scale, **self.options))
        return {"loss": self.loss(*features, **scale, **self.options)}

    def of_batch(self, outputs: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return by name the losses over pairs, and this process's share of what samples add."""
        losses = self.of_pairs(outputs)
        shares = self.of_samples(outputs, self.mean(self.count(outputs))) if self.scores_samples else {}
        return losses, shares

    def reported(self, losses: Mapping[str, Tensor], shares: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what `of_batch` gives as the losses of all processes, without gradient."""
        whole = {name: value.detach() for name, value in losses.items()}
        return whole | {name: self.mean(value.detach()) for name, value in shares.items()}

    def count(self, outputs: Mapping[str, Any]) -> Tensor:
        """Return how many things are scored in some samples.

        Raises:
            InputError: the model does not give what they are scored by.
        """
        return self.loss.sample_count(self._of_samples(outputs))

    def of_samples(
        self, outputs: Mapping[str, Any], mean_count: Tensor, rows: slice = slice(None)
    ) -> dict[str, Tensor]:
        """Return by name what some samples add."""
        options = {"weights": self.options["weights"][rows]} if "weights" in self.options else {}
        return dict(self.loss.sample_losses(self._of_samples(outputs), mean_count, **options))

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean over processes of a scalar that each has its share of."""
        return self.loss.mean_over_processes(value)

    def _of_samples(self, outputs: Mapping[str, Any]) -> dict[str, Tensor]:
        missing = [name for name in self.loss.sample_outputs if name not in outputs]
        if missing:
            lacks = f"which the model does not give; its outputs are {', '.join(outputs)}"
            raise InputError(f"the loss {type(self.loss).__name__} reads {' and '.join(missing)}, {lacks}")
        return {name: outputs[name] for name in self.loss.sample_outputs}
