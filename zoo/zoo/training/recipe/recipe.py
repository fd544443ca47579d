"""The recipe of a training run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from zoo.training.recipe.sections import (
    Batch,
    Data,
    Ema,
    Evaluate,
    Freeze,
    Init,
    Keep,
    Log,
    Parallel,
    Scale,
    Schedule,
    Stop,
)
from zoo_core.config import Config, LossConfig, OptimizerConfig, Section
from zoo_core.errors import one_of

__all__ = ["Recipe"]


class Recipe(Config):
    """All that decides a run: equal recipes on equal data give equal weights, on one machine and with one version."""

    model: str | dict[str, Any]
    """An architecture by its name, its YAML file or its keys, or a saved model by its folder or address."""
    overrides: list[str] = []
    """Changes of the architecture, `"key.path=value"`."""
    init: Init = Init()
    datasets: Annotated[Data, Field(alias="data")]
    """The section `data`; a config has a method of that name."""
    batch: Batch
    freeze: Freeze = Freeze()
    loss: Annotated[LossConfig, Section(LossConfig, "contrastive")] = Field(
        default_factory=dict,
        validate_default=True,  # pyright: ignore[reportAssignmentType]
    )
    """The loss, a component."""
    optimizer: Annotated[OptimizerConfig, Section(OptimizerConfig, "adamw")] = Field(
        default_factory=dict,
        validate_default=True,  # pyright: ignore[reportAssignmentType]
    )
    """The optimizer, a component."""
    schedule: Schedule
    scale: Scale = Scale()
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """What is computed in; weights and what the optimizer holds are float32 always."""
    ema: Ema | None = None
    parallel: Parallel = Parallel()
    evaluate: Evaluate = Evaluate()
    keep: Keep = Keep()
    log: Log = Log()
    stop: Stop = Stop()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Decides initial weights, the order of the data, augmentation and dropout."""
    deterministic: bool = False
    """Whether operations that may give other bits each time are refused; on a GPU this costs time."""

    def data(self) -> dict[str, Any]:
        """Return plain data that `parse` turns back into an equal recipe; null stays null."""
        return self.model_dump(mode="json", by_alias=True)

    def rules(self) -> Iterator[tuple[str, str]]:
        """Refuse values that do not go together."""
        yield from super().rules()
        if self.evaluate.use == "ema" and self.ema is None:
            yield "evaluate.use", "is 'ema', but the recipe has no section ema; add ema: {}"
        yield from self._rules_of_scores()
        size, chunk = self.batch.size, self.batch.chunk
        for part in chunk.values() if isinstance(chunk, dict) else () if chunk is None else (chunk,):
            if part > size:
                yield "batch.chunk", f"is {part}, more than the batch of {size}"

    def _rules_of_scores(self) -> Iterator[tuple[str, str]]:
        """Refuse evaluations of nothing, and a best checkpoint by what is not measured."""
        is_evaluated = self.evaluate.every is not None or "end" in self.evaluate.at
        measured = [config.name or config.component for config in self.evaluate.evaluators]
        measured += [] if self.datasets.validation is None else ["validation"]
        if self.evaluate.every is not None and not measured:
            yield "evaluate.every", "has nothing to measure; add data.validation or evaluate.evaluators"
        best = self.keep.best
        if best is None:
            return
        if not is_evaluated:
            yield "keep.best", "needs scores, but the model is never evaluated; set evaluate.every"
        elif not measured:
            yield "keep.best", "needs scores, but nothing is measured; add data.validation or evaluate.evaluators"
        elif best.metric.partition("/")[0] not in measured or best.metric in measured:
            names = one_of(f"{name}/METRIC" for name in measured)
            yield "keep.best.metric", f"'{best.metric}' is no metric of this recipe; {names}"
