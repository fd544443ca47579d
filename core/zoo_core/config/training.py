"""Bases of configs of data sets, optimizers, callbacks and evaluators."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from zoo_core.config.components import ComponentConfig
from zoo_core.plugin import Kind

__all__ = ["CallbackConfig", "DatasetConfig", "EvaluatorConfig", "OptimizerConfig"]

Factor = Annotated[float, Field(ge=0)]


class DatasetConfig(ComponentConfig):
    """Base of data set configs. A subclass gives `type` its component's name as default."""

    kind: ClassVar[Kind] = "dataset"
    resume: ClassVar[Literal["exact", "approximate"]] = "exact"
    """How a run over it goes on: exactly where samples are had by index, approximately from a stream."""

    type: str
    """Name of the data set component."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share of the rows of each batch, where several data sets are mixed, in proportion to those of the others."""
    choose: Literal["sample", "first", "all"] = "sample"
    """Of a sample with several captions: one at random for each epoch, the first, or each as a row of its own."""


class OptimizerConfig(ComponentConfig):
    """Base of optimizer configs. A subclass gives `type` its component's name as default."""

    kind: ClassVar[Kind] = "optimizer"

    type: str
    """Name of the optimizer component."""
    lr: Annotated[float, Field(gt=0)] = 5e-4
    """Learning rate at the height of the schedule."""
    weight_decay: Factor = 0.2
    """Decay of matrices; biases, norms, scales and what towers name are not decayed."""
    clip: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest norm of the gradient of all parameters together; null leaves it as it is."""
    layer_decay: dict[str, Annotated[float, Field(gt=0, le=1)]] = {}
    """For a modality, the factor of the learning rate from each layer group to the one before it."""
    lr_scale: dict[str, Factor] = {}
    """Factors of the learning rate by a pattern of parameters' names (`"text.*"`); the last that fits counts."""


class CallbackConfig(ComponentConfig):
    """Base of callback configs. A subclass gives `type` its component's name as default."""

    kind: ClassVar[Kind] = "callback"

    type: str
    """Name of the callback component."""
    strict: bool = False
    """Whether an error in it stops the run."""


class EvaluatorConfig(ComponentConfig):
    """Base of evaluator configs. A subclass gives `type` its component's name as default."""

    kind: ClassVar[Kind] = "evaluator"

    type: str
    """Name of the evaluator component."""
    name: str | None = None
    """What its metrics are called by, `name/metric`; its type where null."""

    def rules(self) -> Iterator[tuple[str, str]]:
        """Refuse a name that would not tell its metrics from those of another."""
        yield from super().rules()
        if self.name is not None and (not self.name or "/" in self.name):
            yield "name", f"a name has letters and no '/', found '{self.name}'"
