"""What is seen of a run before it begins: a table of a few real steps, and what deserves attention in it.

The steps are forward and backward passes of real batches. Gradients are cleared after each, so that nothing of the run
is changed.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol

import torch
from torch import Tensor

from zoo.training.optimization.groups import group_table

__all__ = ["Memory", "PreflightBatch", "Report", "Tokenizing", "preflight"]

STEPS = 3
"""Real steps that are timed."""
STARVED = 0.1
"""Share of the time spent waiting for data beyond which the data are too slow."""
FULL = 0.9
"""Share of the memory of the device beyond which little is left for larger batches of the run."""
OFF_CHANCE = 1.5
"""Factor of the loss of chance beyond which the model is worse than one that knows nothing."""
CUT = 0.05
"""Share of captions that are cut beyond which it deserves attention."""
NAMED = 4
"""Names in a message; the others are counted."""


class PreflightBatch(Protocol):
    """What is looked at of a batch."""

    @property
    def inputs(self) -> Mapping[str, Any]:
        """A batch for each modality; token ids are integers `[B, L]`."""
        ...

    @property
    def ids(self) -> Tensor | None:
        """Int64 `[B]`; rows with one id are positives of each other."""
        ...


class Tokenizing(Protocol):
    """As much of a tokenizer as is needed."""

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Sequence[int]]:
        """Return token ids, and the numbers of the texts that were cut."""
        ...


@dataclass(frozen=True)
class Memory:
    """Bytes that a process needs, and that its device has.

    Attributes:
        weights: parameters and buffers, frozen ones included.
        gradients: those of trainable parameters.
        optimizer: what the optimizer holds, once it has made a step.
        peak: the most that was in use in the steps; on the CPU by the whole process.
        device: what the device has.
    """

    weights: int
    gradients: int
    optimizer: int
    peak: int | None
    device: int | None


@dataclass(frozen=True)
class Report:
    """What was seen.

    Attributes:
        groups: trainable parts with learning rate and decay, rows below a header.
        facts: names and values of what was measured.
        warnings: what deserves attention, with its remedy.
    """

    groups: Sequence[tuple[str, ...]]
    facts: Sequence[tuple[str, str]]
    warnings: Sequence[str] = field(default_factory=tuple[str, ...])

    def lines(self) -> list[str]:
        """Return it as lines of text."""
        return [*_columns(self.groups), "", *_columns(self.facts), *(f"warning: {text}" for text in self.warnings)]


@dataclass(frozen=True)
class _Timed:
    """One step: its loss, seconds of waiting for the batch and of computing, and gradients that are not there."""

    loss: float
    wait: float
    compute: float
    without_gradient: list[str]


def preflight(
    groups: Sequence[Mapping[str, Any]],
    *,
    step: Callable[[Any], float],
    batches: Iterable[PreflightBatch],
    device: torch.device,
    steps: int,
    batch: int,
    frozen: Iterable[Tensor] = (),
    moments: int = 2,
    chance: float | None = None,
    captions: Sequence[str] = (),
    tokenizer: Tokenizing | None = None,
) -> Report:
    """Make up to three real steps and report what was seen.

    Args:
        groups: parameter groups with `params`, `names`, `initial_lr`, `weight_decay`, `tower` and `group`.
        step: computes the gradients of a batch and returns its loss; it changes no weights.
        batches: real batches of this process, on its device or copied there by `step`.
        device: where it computes.
        steps: steps of the run.
        batch: samples of a step, over all processes.
        frozen: parameters that are not trained, and buffers.
        moments: tensors that the optimizer holds for each parameter, two for Adam.
        chance: loss of a model that knows nothing, ln(batch) of the contrastive loss; None where it is not known.
        captions: some captions of the data, as they come.
        tokenizer: what cuts them.
    """
    parameters = [parameter for group in groups for parameter in group["params"]]
    names = [name for group in groups for name in group["names"]]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seen: list[PreflightBatch] = []
    timed = list(_steps(step, _kept(batches, seen), dict(zip(names, parameters, strict=True)), device))
    gradients = sum(map(_bytes, parameters))
    weights = gradients + sum(map(_bytes, frozen))
    memory = Memory(weights, gradients, moments * gradients, _peak(device), _capacity(device))
    findings = [
        _memory(memory),
        _rate(timed, steps, batch),
        _loss(timed, chance),
        _gradients(timed, len(parameters)),
        _duplicates(seen),
        _cut(captions, tokenizer),
    ]
    facts = [fact for facts, _ in findings for fact in facts]
    return Report(group_table(groups), facts, [text for _, warnings in findings for text in warnings])


Finding = tuple[list[tuple[str, str]], list[str]]
"""Facts and warnings."""


def _kept(batches: Iterable[PreflightBatch], seen: list[PreflightBatch]) -> Iterator[PreflightBatch]:
    for batch in itertools.islice(batches, STEPS):
        seen.append(batch)
        yield batch


def _steps(
    step: Callable[[Any], float], batches: Iterator[PreflightBatch], parameters: Mapping[str, Any], device: torch.device
) -> Iterator[_Timed]:
    while True:
        begin = perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        ready = perf_counter()
        loss = float(step(batch))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        end = perf_counter()
        missing = [name for name, parameter in parameters.items() if _has_none(parameter.grad)]
        for parameter in parameters.values():
            parameter.grad = None
        yield _Timed(loss, ready - begin, end - ready, missing)


def _has_none(gradient: Any) -> bool:
    if gradient is None:
        return True
    whole: Tensor = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient  # of shards
    return not bool((whole != 0).any())  # NaN is a gradient, and the loss tells of it


def _memory(memory: Memory) -> Finding:
    sizes = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "peak": memory.peak,
        "of": memory.device,
    }
    text = ", ".join(f"{name} {_size(value)}" for name, value in sizes.items() if value is not None)
    needed = max(memory.peak or 0, memory.weights + memory.gradients) + memory.optimizer
    if memory.device is None or needed <= FULL * memory.device:
        return [("memory", text)], []
    return [("memory", text)], [
        f"{_size(needed)} of {_size(memory.device)} are needed once the optimizer has its state; set batch.chunk, "
        "parallel.checkpointing, or parallel.mode: fsdp"
    ]


def _rate(timed: Sequence[_Timed], steps: int, batch: int) -> Finding:
    if not timed:
        return [("rate", "no batch")], []
    steady = timed[1:] or timed  # the first one warms up
    wait, compute = (sum(getattr(one, part) for one in steady) / len(steady) for part in ("wait", "compute"))
    seconds = max(wait + compute, 1e-9)
    facts = [
        ("rate", f"{batch / seconds:,.4g} samples/s: {compute:.3g} s computing and {wait:.3g} s waiting a step"),
        ("first step", f"{timed[0].wait + timed[0].compute:.3g} s"),
        ("whole run", f"{steps:,} steps, {steps * batch:,} samples, about {_duration(steps * seconds)}"),
    ]
    if wait <= STARVED * seconds:
        return facts, []
    return facts, [f"{wait / seconds:.0%} of the time is spent waiting for data; raise data.workers or data.prefetch"]


def _loss(timed: Sequence[_Timed], chance: float | None) -> Finding:
    if not timed:
        return [], []
    loss = timed[0].loss
    if not math.isfinite(loss):
        return [("loss", f"{loss}")], [f"the first loss is {loss}; look at the weights, or set precision: fp32"]
    if chance is None:
        return [("loss", f"{loss:.4g}")], []
    fact = ("loss", f"{loss:.4g}, where chance gives {chance:.4g}")
    if loss <= OFF_CHANCE * chance:
        return [fact], []
    return [fact], [
        f"the first loss, {loss:.4g}, is far above that of chance, {chance:.4g}: weights that were trained with "
        "another loss, or a logit scale that is too large; set loss, init.logit_scale or init.logit_bias"
    ]


def _gradients(timed: Sequence[_Timed], count: int) -> Finding:
    if not timed:
        return [], []
    missing = [name for name in timed[0].without_gradient if all(name in one.without_gradient for one in timed)]
    fact = ("gradients", f"in {count - len(missing):,} of {count:,} trainable tensors")
    if not missing:
        return [fact], []
    more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
    return [fact], [f"no gradient reaches {', '.join(missing[:NAMED])}{more}; freeze what the loss does not use"]


def _duplicates(seen: Sequence[PreflightBatch]) -> Finding:
    """Count rows of a batch whose texts are the same, without being positives of each other by their ids."""
    facts: list[tuple[str, str]] = []
    rows = alike = false_negatives = 0
    for batch in seen:
        for value in batch.inputs.values():
            if isinstance(value, Tensor) and value.ndim == 2 and not value.is_floating_point():
                same = (value[:, None] == value[None]).all(dim=2).cpu()  # [B, B]
                rows, alike = rows + len(same), alike + int((same.sum(dim=1) > 1).sum())
                if batch.ids is not None:
                    ids = batch.ids.cpu()
                    same &= ids[:, None] != ids[None, :]
                false_negatives += int((same.sum(dim=1) > (1 if batch.ids is None else 0)).sum())
    if rows:
        facts.append(("duplicates", f"{alike / rows:.1%} of the texts of a batch occur in it more than once"))
    if not false_negatives:
        return facts, []
    return facts, [
        f"{false_negatives / rows:.1%} of the rows of a batch are held against others of the same text as wrong pairs; "
        "give the data set an id, by which such rows are right answers to each other"
    ]


def _cut(captions: Sequence[str], tokenizer: Tokenizing | None) -> Finding:
    if not captions or tokenizer is None:
        return [], []
    share = len(tokenizer.tokenize(captions)[1]) / len(captions)
    fact = ("cut captions", f"{share:.1%} of {len(captions):,}")
    if share <= CUT:
        return [fact], []
    return [fact], [f"{share:.1%} of the captions are longer than the model reads; set text.context_length, or shorten"]


def _peak(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _capacity(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows as lines whose cells stand below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
