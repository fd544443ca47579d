"""A training run: what it consists of, and one step after the other."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from torch import nn
from torch.optim import Optimizer

from zoo.training.checkpoints.state import TrainingState
from zoo.training.clock import Clock
from zoo.training.data.batch import BadSampleCount
from zoo.training.data.loader import worker_deaths
from zoo.training.gradients.clip import clip_gradients
from zoo.training.gradients.step import StepResult, clamp_logit_scale, contrastive_step, seed_step
from zoo.training.initial_model import freeze_batch_norms
from zoo.training.optimization.optimizer import weights_that_count
from zoo.training.optimization.schedules import learning_rate_factor, set_learning_rates
from zoo.training.record.bad_samples import list_bad_samples
from zoo.training.signals import StopRequest
from zoo_core.errors import ConfigError, DataError, InputError, Problem, TrainingError, one_of
from zoo_core.training import StepRecord

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack
    from types import TracebackType

    from zoo.training.checkpoints.store import Checkpoints
    from zoo.training.data.batch import Batch
    from zoo.training.data.loader import Loader
    from zoo.training.data.open import TrainingData
    from zoo.training.evaluation import Evaluation
    from zoo.training.optimization.ema import Ema
    from zoo.training.optimization.loss_scaler import LossScaler
    from zoo.training.parallel.watchdog import Watchdog
    from zoo.training.parallel.world import World
    from zoo.training.recipe.recipe import Recipe
    from zoo.training.record.recorder import Recorder
    from zoo_core.models.dual_encoder import DualEncoder

__all__ = ["Run"]


@dataclass
class Run:
    """A model, its data, its optimizer and its record; `zoo.training.prepare` makes it.

        with zoo.training.prepare("recipe.yaml") as run:
            for batch in run:
                run.step(batch)

    Iterating yields the batches of the steps that are left. Between them the run logs, evaluates and saves as the
    recipe says.

    Attributes:
        recipe: what decides the run.
        folder: where its checkpoints, records and model are.
        world: the processes.
        model: the model itself, in training mode.
        module: what a step calls: the model, or what DDP, FSDP2 and torch.compile made of it.
        data: what is trained on.
        loader: its batches for this process, from the next step on.
        optimizer: its optimizer, over groups that name their parameters.
        steps: number of steps of the whole run.
        done: number of steps that are done.
        scores: what the last evaluation gave, by name.
        stopped: the signal or the limit that ended the run before its last step; None where nothing did.
    """

    recipe: Recipe
    folder: Path
    world: World
    model: DualEncoder
    module: nn.Module
    data: TrainingData
    loader: Loader
    loss: Any
    optimizer: Optimizer
    evaluation: Evaluation
    checkpoints: Checkpoints
    recorder: Recorder
    watchdog: Watchdog
    resources: ExitStack
    steps: int
    facts: Mapping[str, Any]
    ema: Ema | None = None
    scaler: LossScaler | None = None
    done: int = 0
    scores: dict[str, float] = field(default_factory=dict[str, float])
    stopped: str | None = None
    result: StepResult | None = None
    resumed_facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    _norm: float = math.nan
    _skipped: int = 0
    _measured: int | None = None
    _clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self._bad_samples = BadSampleCount(self.recipe.datasets.bad_samples.limit)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the record and leave the other processes."""
        if self.world.is_first:
            self.recorder.on_end(self.done, error)
        self.resources.__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the steps that are left; `step` is to be called once for each.

        Raises:
            InputError: `step` was not called for a batch.
            DataError: samples cannot be read, or too many of them are bad.
            SaveError: a checkpoint cannot be written.
        """
        self._train_mode()
        if self.done == 0 and "start" in self.recipe.evaluate.at:
            self.evaluate()
        with StopRequest() as request:
            self._clock.resume()
            batches = iter(self.loader)
            while self.done < self.steps and self.stopped is None:
                step = self.done + 1
                with self.watchdog.doing(f"step {step:,}: batch"):
                    batch = next(batches)
                self._clock.batch_came()
                yield batch
                if self.done != step:
                    raise InputError(f"step {step:,}: call run.step(batch) once for each batch of the run")
                doing = f"step {step:,}: records and checkpoints"
                with self.watchdog.doing(doing), worker_deaths(f"at step {step:,}"):
                    self._after_step(batch, request)

    def step(self, batch: Batch) -> StepResult:
        """Take one step: the gradient of a batch, and what the optimizer makes of it.

        A step whose gradient is not finite changes no weight.

        Returns:
            the loss of the batch and its parts, before the step.

        Raises:
            InputError: the batch does not fit the model.
            TrainingError: gradients were not finite too often in a row.
        """
        step = self.done + 1
        with self.watchdog.doing(f"step {step:,}: gradients"), worker_deaths(f"at step {step:,}"):
            return self._step(batch)

    def gradient(self, batch: Batch, *, loss_scale: float = 1.0) -> StepResult:
        """Add the gradient of a batch to those of the model, as the next step would, and change nothing else."""
        seed_step(self.recipe.seed, self.done, self.world.rank)
        return contrastive_step(
            self.module,
            self.loss,
            batch.inputs,
            ids=batch.ids,
            weights=batch.weights,
            chunk=self.recipe.batch.chunk,
            precision=self.recipe.precision,
            loss_scale=loss_scale,
        )

    def _step(self, batch: Batch) -> StepResult:
        recipe = self.recipe
        set_learning_rates(self.optimizer, learning_rate_factor(recipe.schedule, self.done, self.steps))
        self.optimizer.zero_grad(set_to_none=True)
        scale = 1.0 if self.scaler is None else self.scaler.scale
        self.result = self.gradient(batch, loss_scale=scale)
        self._norm = float(clip_gradients(self.module, recipe.optimizer.clip, loss_scale=scale))
        is_finite = math.isfinite(self._norm)
        if self.scaler is not None:
            self.scaler.update(is_finite)
        if is_finite:
            self.optimizer.step()  # pyright: ignore[reportUnknownMemberType]
            clamp_logit_scale(self.model, recipe.scale.min, recipe.scale.max)
        self._count(is_finite)
        if self.ema is not None:
            self.ema.update(self.done)
        return self.result

    def evaluate(self) -> dict[str, float]:
        """Measure the model with the evaluators of the recipe, and record what they say.

        Raises:
            ConfigError: the metric by which the best checkpoint is kept is not among them.
        """
        with self.weights_in_use():
            self.scores = self.evaluation.scores(self.model, self.module, self.loss)
        self._train_mode()
        self._measured = self.done
        if self.world.is_first:
            self.recorder.on_evaluate(self.done, self.scores)
        best = self.recipe.keep.best
        if best is not None and best.metric not in self.scores:
            raise ConfigError(Problem(f"'{best.metric}' is not measured; {one_of(self.scores)}", "keep.best.metric"))
        return self.scores

    @contextmanager
    def weights_in_use(self) -> Generator[None]:
        """Have the model hold in a block the weights that are evaluated and in the end saved."""
        with weights_that_count(self.optimizer, self.module):
            if self.ema is not None and self.recipe.evaluate.use == "ema":
                with self.ema.swapped():
                    yield
            else:
                yield

    def save(self) -> None:
        """Write a checkpoint of this step; where there is a whole one already, nothing is done.

        Raises:
            SaveError: it cannot be written; the checkpoints before are whole.
        """
        best = self.recipe.keep.best
        is_measured = best is not None and self._measured == self.done
        score = self.scores[best.metric] if best is not None and is_measured else None
        scaler = {} if self.scaler is None else {"scaler": self.scaler.state_dict()}
        self.checkpoints.save(self.done, self.state(), {**self.facts, **scaler}, score=score)
        self._clock.saved()

    def state(self) -> TrainingState:
        """Return what a checkpoint holds."""
        return TrainingState(self.model, self.optimizer, None if self.ema is None else self.ema.state_dict())

    def resume(self, path: Path) -> None:
        """Take model, optimizer and step from a checkpoint.

        Raises:
            CheckpointError: it is damaged, or of another model.
        """
        record = self.checkpoints.load(path, self.state())
        self.done = self.loader.start = record.step
        self.resumed_facts = record.facts
        if self.scaler is not None and "scaler" in record.facts:
            self.scaler.load_state_dict(record.facts["scaler"])

    def _count(self, is_finite: bool) -> None:
        self.done += 1
        self._skipped = 0 if is_finite else self._skipped + 1
        if self._skipped >= self.recipe.stop.nonfinite:
            raise TrainingError(
                f"step {self.done:,}: the gradient was not finite {self._skipped} times in a row, and no weight was "
                "changed by these; lower optimizer.lr, lengthen schedule.warmup, or use precision: bf16"
            )

    def _after_step(self, batch: Batch, request: StopRequest) -> None:
        """Log, evaluate and save where it is time to, in all processes alike."""
        recipe, is_last = self.recipe, self.done == self.steps
        self._clock.step_ended()
        bad = self._note_bad_samples(batch)
        is_bad, is_asked, is_over, save = self.world.any(
            bad is not None,
            request.arrived is not None,
            self._clock.run_is_over(recipe.stop.minutes),
            self._clock.save_is_due(recipe.keep.minutes),
        )
        if is_bad:
            self.save()
            raise bad or DataError(f"step {self.done:,}: another process met too many bad samples, and says which")
        if (is_asked or is_over) and not is_last:
            self.stopped = (request.arrived or "SIGTERM") if is_asked else "stop.minutes"
        if self.world.is_first and (self.done % recipe.log.every == 0 or is_last or self.stopped):
            self.recorder.on_step(self._record())
        every, at_end = recipe.evaluate.every, is_last and "end" in recipe.evaluate.at
        is_due = recipe.keep.steps is not None and self.done % recipe.keep.steps == 0
        if not self.stopped and (at_end or (every is not None and self.done % every == 0)):
            self.evaluate()
            is_due = is_due or recipe.keep.best is not None
        if save or is_last or is_due or self.stopped:
            self.save()
        self._clock.resume()

    def _note_bad_samples(self, batch: Batch) -> DataError | None:
        """List the bad samples of a batch; return the error where this process has met too many."""
        if batch.bad:
            list_bad_samples(self.folder, self.world.rank, self.done, batch.bad)
        try:
            self._bad_samples.add(batch)
        except DataError as error:
            return error
        return None

    def _record(self) -> StepRecord:
        """Return what this step did."""
        size, result = self.recipe.batch.size, self.result
        metrics: dict[str, float] = {}
        if result is not None:
            parts = result.losses if len(result.losses) > 1 else {}
            metrics = {"loss": float(result.loss), **{name: float(value) for name, value in parts.items()}}
            metrics["logit_scale"] = float(result.logit_scale)
        metrics["lr"] = max(float(group["lr"]) for group in self.optimizer.param_groups)
        metrics["grad_norm"] = self._norm
        metrics |= self._clock.record(size)
        if self.scaler is not None:
            metrics["loss_scale"] = self.scaler.scale
        return StepRecord(self.done, self.steps, self.done * size, metrics)

    def _train_mode(self) -> None:
        self.module.train()
        if self.recipe.freeze.batch_norm == "frozen":
            freeze_batch_norms(self.model)
