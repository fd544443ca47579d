"""Sections of a recipe.

Components stand in sections of their own: data sets, the loss, the optimizer, callbacks and evaluators are validated by
the plugins that bring them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from zoo_core.config import CallbackConfig, Config, DatasetConfig, EvaluatorConfig, Section

__all__ = [
    "BadSamples",
    "Batch",
    "Best",
    "Data",
    "Ema",
    "Evaluate",
    "Filter",
    "Freeze",
    "Init",
    "Keep",
    "Log",
    "Parallel",
    "Scale",
    "Schedule",
    "Stop",
]

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


def _as_list(value: Any) -> Any:
    """Let one section stand for a list of one."""
    return [value] if isinstance(value, dict | DatasetConfig) else value


Datasets = Annotated[
    list[Annotated[DatasetConfig, Section(DatasetConfig)]], BeforeValidator(_as_list), Field(min_length=1)
]


class Init(Config):
    """What training begins with."""

    pretrained: str | None = None
    """A tag of the architecture, or the path of a checkpoint; null draws random weights from the seed."""
    logit_scale: Positive | None = None
    """Factor of the cosines at the start; that of the architecture or of the weights where null."""
    logit_bias: float | None = None
    """Offset of the logits at the start; that of the architecture or of the weights where null."""


class BadSamples(Config):
    """What is done with samples that cannot be read."""

    limit: Share = 0.001
    """Share of the samples seen by then that may be bad, once there are a thousand; more stop the run."""


class Filter(Config):
    """Samples that count as bad although they can be read."""

    min_size: Count = 1
    """Least height and width of an image in pixels."""
    max_aspect: Annotated[float, Field(ge=1)] | None = None
    """Greatest ratio of the longer side of an image to the shorter."""
    min_text: Count = 1
    """Least number of characters of a caption, spaces at its ends not counted."""


class Data(Config):
    """What is trained on, and in which order."""

    train: Datasets
    """A data set, or several that are mixed by their weights."""
    validation: Datasets | None = None
    """A data set on which losses are measured when the model is evaluated."""
    shuffle: Literal["full", "window", "none"] = "full"
    """Whether all samples are mixed, those of a few blocks (such as shards) at a time, or none."""
    window_blocks: Count = 64
    """How many blocks are mixed at a time with `shuffle: window`."""
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Processes that read and prepare samples; `auto` takes as many as there are cores to spare."""
    prefetch: Count = 2
    """Batches that each of them prepares ahead."""
    augment: bool = True
    """Whether images go through the model's preprocessing for training, or that for evaluation."""
    bad_samples: BadSamples = BadSamples()
    filter: Filter = Filter()

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold several data sets to one way of resuming."""
        yield from super().rules()
        ways = {dataset.resume for dataset in self.train}
        if len(ways) > 1:
            yield "train", "mixes data sets with an index and streams; a stream has no place in an exact order"


class Batch(Config):
    """Samples of a step."""

    size: Count
    """Samples of a step, over all processes."""
    chunk: Count | dict[str, Count] | None = None
    """Samples that a tower sees at a time, for each process: the gradient is that of the whole batch at the memory of a
    chunk (GradCache, Gao et al. 2021). One number, or one for each modality; null takes the batch at once."""


class Freeze(Config):
    """What is not trained."""

    towers: dict[str, Literal["all", "none"] | Annotated[int, Field(ge=0)]] = {}
    """For a modality, `all`, `none`, or how many of its layer groups, counted from the output, stay trainable."""
    norms: Literal["train", "frozen"] = "frozen"
    """Whether the norms of frozen layers are trained."""
    batch_norm: Literal["train", "frozen"] = "train"
    """Whether batch norms use the statistics of each batch, or the running ones that they have."""
    logit_scale: Literal["train", "frozen"] = "train"
    """Whether logit scale and bias are trained."""


class Schedule(Config):
    """The learning rate over the steps, and their number: one of `steps`, `samples` and `epochs`."""

    type: Literal["cosine", "linear", "wsd", "rsqrt", "constant"] = "cosine"
    """Half a cosine to `end`; a line to it; constant with a line to it at the end (`wsd`); the inverse square root of
    the step with the same end (`rsqrt`); constant."""
    steps: Count | None = None
    """Number of steps."""
    samples: Positive | None = None
    """Number of samples instead, rounded up to whole steps."""
    epochs: Positive | None = None
    """Number of passes over the data instead, rounded up to whole steps."""
    warmup: Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, lt=1)] = 0
    """Steps over which the learning rate rises from 0: a number, or a share of all steps (below 1)."""
    cooldown: Share = 0.2
    """Share of all steps over which `wsd` and `rsqrt` fall to `end`."""
    end: Share = 0.0
    """Factor of the learning rate at the end."""

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold it to one length."""
        yield from super().rules()
        lengths = [name for name in ("steps", "samples", "epochs") if getattr(self, name) is not None]
        if len(lengths) != 1:
            stated = " and ".join(lengths) or "none of them"
            yield "steps", f"state one of steps, samples and epochs, found {stated}"


class Scale(Config):
    """Bounds of the logit scale, the factor of the cosines, after each step."""

    min: Positive = 1.0
    """The least factor."""
    max: Positive | None = 100.0
    """The greatest factor; null leaves it free."""

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold the bounds to their order."""
        yield from super().rules()
        if self.max is not None and self.max < self.min:
            yield "max", f"is below min, {self.min:g}"


class Ema(Config):
    """An average of the weights over the steps, with the field's exponential decay."""

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.9999
    """Factor of the average at each step."""
    start: Annotated[int, Field(ge=0)] = 0
    """Steps before which the average is the weights themselves."""


class Parallel(Config):
    """How processes share the work."""

    mode: Literal["auto", "none", "ddp", "fsdp"] = "auto"
    """`auto` takes one process as it is, several with DDP where the weights and what belongs to them fit into 60 % of
    the memory of each, and else with FSDP2."""
    shard: Count | None = None
    """Processes that share one copy of the weights with `fsdp`, the copies being kept equal (HSDP); all where null."""
    reshard: bool = True
    """Whether `fsdp` frees gathered weights after the forward pass and gathers them again."""
    compile: Literal["none", "blocks", "model"] = "none"
    """What torch.compile is given."""
    checkpointing: bool = False
    """Whether activations are computed again in the backward pass."""
    timeout: Positive = 600.0
    """Seconds after which processes that wait for one another give up."""


class Evaluate(Config):
    """When the model is evaluated, and with what."""

    every: Count | None = None
    """Steps between evaluations; null evaluates at `at` alone."""
    at: list[Literal["start", "end"]] = ["end"]
    """Where it is evaluated besides."""
    use: Literal["model", "ema"] = "model"
    """Which weights."""
    evaluators: list[Annotated[EvaluatorConfig, Section(EvaluatorConfig)]] = []
    """Evaluators; the loss on `data.validation` is measured in any case."""


class Best(Config):
    """The checkpoint that is kept for its score."""

    metric: str
    """Name of a metric, such as `validation/loss`."""
    mode: Literal["min", "max"] = "max"
    """Whether the least or the greatest is the best."""


class Keep(Config):
    """Which checkpoints are written, and which stay."""

    steps: Count | None = 1000
    """Steps between checkpoints; one is always written at the end."""
    minutes: Positive | None = None
    """Minutes between checkpoints, besides."""
    last: Annotated[int, Field(ge=2)] = 3
    """How many of the last checkpoints stay: two at least, so that one stays while the next is verified."""
    best: Best | None = None
    """Whether the best one stays too."""
    background: bool = False
    """Whether checkpoints are written while training goes on."""


class Log(Config):
    """What is recorded."""

    every: Count = 10
    """Steps between records."""
    to: list[Annotated[CallbackConfig, Section(CallbackConfig)]] = []
    """Callbacks beside the record itself, `metrics.jsonl`."""


class Stop(Config):
    """What ends a run before its last step."""

    nonfinite: Count = 10
    """Steps in a row whose gradient is not finite; each is skipped."""
    minutes: Positive | None = None
    """Minutes, after which a checkpoint is written."""
