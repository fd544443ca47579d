"""What is seen of a run before it begins."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zoo
from zoo.training import preflight as module
from zoo.training.preflight import Memory, Report, _duration, _memory, _size, preflight

CPU = torch.device("cpu")


@dataclass
class Batch:
    inputs: dict[str, Any]
    ids: Tensor | None = None


class Clock:
    """Tells the time that a test spends."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(module, "perf_counter", Clock())
    return module.perf_counter  # type: ignore[return-value]


def spend(seconds: float) -> None:
    module.perf_counter.now += seconds  # type: ignore[attr-defined]


@dataclass
class Case:
    """Two linear layers, of which the loss uses the first alone unless `both`."""

    both: bool = True
    loss: float | None = None
    texts: Tensor = field(default_factory=lambda: torch.arange(12).view(4, 3))
    ids: Tensor | None = None
    wait: float = 0.05
    compute: float = 0.75
    options: dict[str, Any] = field(default_factory=dict)

    def report(self) -> tuple[Report, nn.Module]:
        torch.manual_seed(0)
        model = nn.ModuleDict({"first": nn.Linear(3, 2), "second": nn.Linear(3, 2)})
        groups = [
            {
                "params": list(module.parameters()),
                "names": [f"{name}.{key}" for key, _ in module.named_parameters()],
                "initial_lr": 1e-3,
                "lr": 0.0,
                "weight_decay": decay,
                "tower": name,
                "group": None,
            }
            for (name, module), decay in zip(model.items(), (0.2, 0.0), strict=True)
        ]

        def step(batch: Batch) -> float:
            spend(self.compute)
            inputs = batch.inputs["text"].float()
            value = (model["first"](inputs) + (model["second"](inputs) if self.both else 0)).square().mean()
            value.backward()
            return value.item() if self.loss is None else self.loss

        def batches() -> Iterator[Batch]:
            for number in itertools.count():
                spend(self.wait if number else 5.0)
                yield Batch({"image": torch.zeros(4, 3, 2, 2), "text": self.texts}, self.ids)

        options = {"device": CPU, "steps": 100, "batch": 4, **self.options}
        return preflight(groups, step=step, batches=batches(), **options), model


def test_the_table_shows_trainable_parts_with_learning_rate_and_decay() -> None:
    report, _ = Case().report()
    assert report.groups[0][:4] == ("tower", "layer group", "learning rate", "weight decay")
    assert report.groups[1:] == [
        ("first", "all", "0.001", "0.2", "2", "8"),
        ("second", "all", "0.001", "0", "2", "8"),
    ]
    assert report.warnings == []
    lines = report.lines()
    assert lines[1].split() == ["first", "all", "0.001", "0.2", "2", "8"]
    assert lines[3] == ""
    assert lines[4].startswith("memory")


def test_nothing_of_the_run_is_changed() -> None:
    report, model = Case().report()
    torch.manual_seed(0)
    fresh = nn.ModuleDict({"first": nn.Linear(3, 2), "second": nn.Linear(3, 2)})
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), fresh.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert dict(report.facts)["gradients"] == "in 4 of 4 trainable tensors"


def test_rate_and_waiting_are_those_of_the_steps_after_the_first() -> None:
    report, _ = Case(wait=0.05, compute=0.75).report()
    facts = dict(report.facts)
    assert facts["rate"] == "5 samples/s: 0.75 s computing and 0.05 s waiting a step"
    assert facts["first step"] == "5.75 s"
    assert facts["whole run"] == "100 steps, 400 samples, about 1 min 20 s"
    assert report.warnings == []


WARNINGS: dict[str, tuple[Case, str]] = {
    "slow data": (
        Case(wait=0.25, compute=0.75),
        "25% of the time is spent waiting for data; raise data.workers or data.prefetch",
    ),
    "no gradient": (
        Case(both=False),
        "no gradient reaches second.weight, second.bias; freeze what the loss does not use",
    ),
    "far from chance": (
        Case(loss=274.0, options={"chance": math.log(4)}),
        "the first loss, 274, is far above that of chance, 1.386: weights that were trained with another loss",
    ),
    "not finite": (Case(loss=float("nan")), "the first loss is nan; look at the weights"),
    "same texts": (
        Case(texts=torch.tensor([[1, 2, 3], [4, 5, 6], [1, 2, 3], [7, 8, 9]])),
        "50.0% of the rows of a batch are held against others of the same text as wrong pairs; give the data set an id",
    ),
    "same texts of other ids": (
        Case(texts=torch.ones(4, 3, dtype=torch.int64), ids=torch.tensor([0, 0, 0, 1])),
        "100.0% of the rows",
    ),
    "cut captions": (
        Case(options={"captions": ["a " * 99, "a cat"], "tokenizer": zoo.tokenizer("digits-tiny")}),
        "50.0% of the captions are longer than the model reads",
    ),
}


@pytest.mark.parametrize(("case", "message"), WARNINGS.values(), ids=WARNINGS)
def test_what_deserves_attention_is_said_with_its_remedy(case: Case, message: str) -> None:
    report, _ = case.report()
    (warning,) = report.warnings
    assert message in warning
    assert report.lines()[-1] == f"warning: {warning}"


QUIET: dict[str, tuple[Case, tuple[str, str]]] = {
    "near chance": (
        Case(loss=1.4, options={"chance": math.log(4)}),
        ("loss", "1.4, where chance gives 1.386"),
    ),
    "same texts of one id": (
        Case(texts=torch.tensor([[1, 2, 3], [4, 5, 6], [1, 2, 3], [7, 8, 9]]), ids=torch.tensor([3, 1, 3, 2])),
        ("duplicates", "50.0% of the texts of a batch occur in it more than once"),
    ),
    "short captions": (
        Case(options={"captions": ["a cat"] * 2, "tokenizer": zoo.tokenizer("digits-tiny")}),
        ("cut captions", "0.0% of 2"),
    ),
}


@pytest.mark.parametrize(("case", "fact"), QUIET.values(), ids=QUIET)
def test_what_is_in_order_is_a_fact_alone(case: Case, fact: tuple[str, str]) -> None:
    report, _ = case.report()
    assert fact in report.facts
    assert report.warnings == []


def test_memory_counts_weights_gradients_and_what_the_optimizer_will_hold() -> None:
    report, _ = Case(options={"frozen": [torch.zeros(64)], "moments": 1}).report()
    assert dict(report.facts)["memory"].startswith("weights 320 B, gradients 64 B, optimizer 64 B, peak ")


@pytest.mark.parametrize(("device", "is_enough"), [(130, True), (120, False), (None, True)])
def test_memory_that_the_device_lacks_is_said(device: int | None, is_enough: bool) -> None:
    facts, warnings = _memory(Memory(weights=30, gradients=30, optimizer=40, peak=70, device=device))
    assert facts[0][1].startswith("weights 30 B, gradients 30 B, optimizer 40 B, peak 70 B")
    assert (warnings == []) is is_enough
    assert is_enough or warnings[0].startswith("110 B of 120 B are needed once the optimizer has its state; set batch")


def test_a_loader_without_batches_is_reported_and_breaks_nothing() -> None:
    report = preflight([], step=lambda batch: 0.0, batches=[], device=CPU, steps=0, batch=4)
    assert ("rate", "no batch") in report.facts


def test_sizes_and_durations_are_written_for_people() -> None:
    assert [_size(size) for size in (1023, 1536, 3 * 1024**2, 2.5 * 1024**3)] == [
        "1023 B",
        "1.5 KiB",
        "3 MiB",
        "2.5 GiB",
    ]
    assert [_duration(seconds) for seconds in (59, 61, 7_320)] == ["59 s", "1 min 1 s", "2 h 2 min"]
