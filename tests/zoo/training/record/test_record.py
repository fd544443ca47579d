"""The record of a run, and callbacks that cannot stop it."""

from __future__ import annotations

import copy
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from zoo.training.record.dispatch import Listener, build_callbacks
from zoo.training.record.jsonl import METRICS, MetricsFile, read_metrics
from zoo.training.record.recorder import Recorder
from zoo_core.config import CallbackConfig
from zoo_core.errors import PluginError, SaveError, ZooWarning
from zoo_core.training import Callback, StepRecord


class Listening(Callback):
    """Remembers what it was told; changes what it was given."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def on_start(self, folder: Path, recipe: Mapping[str, Any], step: int) -> None:
        self.events.append(("start", folder, copy.deepcopy(dict(recipe)), step))
        recipe["batch"]["size"] = 0

    def on_step(self, record: StepRecord) -> None:
        self.events.append(("step", record.step, dict(record.metrics)))
        record.metrics.clear()  # type: ignore[attr-defined]

    def on_evaluate(self, step: int, metrics: Mapping[str, float]) -> None:
        self.events.append(("evaluate", step, dict(metrics)))

    def on_save(self, step: int, folder: Path) -> None:
        self.events.append(("save", step, folder))

    def on_end(self, step: int, error: BaseException | None) -> None:
        self.events.append(("end", step, error))


class Failing(Callback):
    def __init__(self, error: BaseException) -> None:
        self.error, self.calls = error, 0

    def on_step(self, record: StepRecord) -> None:
        self.calls += 1
        raise self.error


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


def step(number: int, **metrics: float) -> StepRecord:
    return StepRecord(number, 10, 4 * number, {"loss": 1 / number, **metrics})


def run(folder: Path, first: int, last: int, **options: Any) -> Recorder:
    recorder = Recorder(folder, **options)
    recorder.on_start({"batch": {"size": 4}}, first - 1)
    for number in range(first, last + 1):
        recorder.on_step(step(number))
    return recorder


def test_each_event_is_one_line_of_json_with_its_step_and_time(tmp_path: Path) -> None:
    recorder = run(tmp_path, 1, 2)
    recorder.on_evaluate(2, {"validation/loss": 0.5})
    recorder.on_save(2, tmp_path / "checkpoints" / "step-00000002")
    recorder.on_end(2, RuntimeError("no power"))
    written = lines(tmp_path)
    assert all(isinstance(line.pop("time"), float) for line in written)
    assert written == [
        {"event": "start", "step": 0},
        {"event": "step", "step": 1, "steps": 10, "samples": 4, "loss": 1.0},
        {"event": "step", "step": 2, "steps": 10, "samples": 8, "loss": 0.5},
        {"event": "evaluate", "step": 2, "validation/loss": 0.5},
        {"event": "save", "step": 2, "folder": "step-00000002"},
        {"event": "end", "step": 2, "error": "RuntimeError: no power"},
    ]


def test_a_line_is_there_as_soon_as_the_step_is_done(tmp_path: Path) -> None:
    recorder = run(tmp_path, 1, 3)
    assert [line["step"] for line in lines(tmp_path)] == [0, 1, 2, 3]
    recorder.on_end(3)


def test_a_killed_run_goes_on_with_the_record_of_one_that_was_not(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    run(whole, 1, 8).on_end(8)
    run(killed, 1, 6)  # is killed after a checkpoint of step 4, in the middle of a line
    with (killed / METRICS).open("a") as file:
        file.write('{"event": "step", "st')
    run(killed, 5, 8).on_end(8)
    steps = [[line | {"time": 0} for line in lines(folder) if line["event"] == "step"] for folder in (whole, killed)]
    assert steps[0] == steps[1]
    assert [line["step"] for line in lines(killed) if line["event"] == "start"] == [0, 4]


def test_a_kill_while_lines_are_dropped_leaves_the_old_record_or_the_new(tmp_path: Path) -> None:
    run(tmp_path, 1, 6).on_end(6)
    before = (tmp_path / METRICS).read_bytes()
    code = (
        "import os, pathlib, signal, sys\n"
        "from zoo.training.record.jsonl import MetricsFile\n"
        "pathlib.Path.replace = lambda self, target: os.kill(os.getpid(), signal.SIGKILL)\n"
        "MetricsFile(pathlib.Path(sys.argv[1]), 3)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / METRICS)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / METRICS).read_bytes() == before
    MetricsFile(tmp_path / METRICS, 3)
    assert [line["step"] for line in lines(tmp_path)] == [0, 1, 2, 3]


def test_a_record_without_later_lines_is_not_written_anew(tmp_path: Path) -> None:
    run(tmp_path, 1, 3).on_end(3)
    inode = (tmp_path / METRICS).stat().st_ino
    MetricsFile(tmp_path / METRICS, 3)
    assert (tmp_path / METRICS).stat().st_ino == inode


def test_values_that_are_not_finite_are_json_that_float_reads(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.on_start({}, 0)
    recorder.on_step(step(1, grad_norm=float("inf"), lr=float("nan")))
    text = (tmp_path / METRICS).read_text().splitlines()[-1]

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    line = json.loads(text, parse_constant=refuse)
    assert float(line["grad_norm"]) == float("inf")
    assert float(line["lr"]) != float(line["lr"])


def test_no_metric_takes_the_name_of_a_field(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.on_start({}, 0)
    recorder.on_step(step(1, step=99.0, event=98.0, time=0.0))
    assert [(line["event"], line["step"]) for line in lines(tmp_path)] == [("start", 0), ("step", 1)]


def test_a_record_that_is_written_meanwhile_can_be_read(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_text('{"event": "step", "step": 1}\nnull\n[1]\n\0\0\n{"event": "step", "step": 2}\n{"ev')
    assert [line["step"] for line in read_metrics(tmp_path / METRICS)] == [1, 2]


def test_a_record_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    recorder = run(tmp_path, 1, 1)
    (tmp_path / METRICS).unlink()
    (tmp_path / METRICS).mkdir()
    for action in (lambda: recorder.on_step(step(2)), lambda: recorder.on_start({}, 1)):
        with pytest.raises(SaveError, match=r"metrics\.jsonl cannot be written: Is a directory"):
            action()


def test_callbacks_are_told_in_order_and_cannot_change_what_others_see(tmp_path: Path) -> None:
    first, second = Listening(), Listening()
    recorder = run(tmp_path, 3, 3, listeners=[Listener.of(first), Listener.of(second)])
    recorder.on_evaluate(3, {"zero-shot/accuracy": 0.5})
    recorder.on_save(3, tmp_path)
    recorder.on_end(3)
    assert first.events == second.events
    assert first.events == [
        ("start", tmp_path, {"batch": {"size": 4}}, 2),
        ("step", 3, {"loss": 1 / 3}),
        ("evaluate", 3, {"zero-shot/accuracy": 0.5}),
        ("save", 3, tmp_path),
        ("end", 3, None),
    ]


RAISED: dict[str, tuple[BaseException, str]] = {
    "error": (OSError("no network"), "callback Failing: on_step failed: OSError: no network"),
    "exit": (SystemExit(1), "callback Failing: on_step failed: SystemExit: 1"),
    "interrupt without a signal": (KeyboardInterrupt(), "callback Failing: on_step failed: KeyboardInterrupt"),
    "of zoo": (PluginError("log in first"), "log in first"),
    "warning": (UserWarning("slow"), "UserWarning: slow"),
}


@pytest.mark.parametrize(("error", "message"), RAISED.values(), ids=RAISED)
def test_a_callback_that_fails_is_reported_once_and_stops_nothing(
    tmp_path: Path, error: BaseException, message: str
) -> None:
    failing, after = Failing(error), Listening()
    reports: list[str] = []
    recorder = run(tmp_path, 1, 3, listeners=[Listener.of(failing), Listener.of(after)], report=reports.append)
    recorder.on_end(3)
    assert failing.calls == 3
    assert [event[0] for event in after.events] == ["start", "step", "step", "step", "end"]
    assert reports == [f"{message}; the run goes on without it where it fails, and this is said once"]
    assert [line["message"] for line in lines(tmp_path) if line["event"] == "warning"] == reports


def test_a_failure_is_a_warning_where_nobody_reports_otherwise(tmp_path: Path) -> None:
    with pytest.warns(ZooWarning, match="callback Failing: on_step failed: OSError: no network"):
        run(tmp_path, 1, 1, listeners=[Listener.of(Failing(OSError("no network")))])


def test_a_strict_callback_stops_the_run_after_the_others_were_told(tmp_path: Path) -> None:
    after = Listening()
    listeners = [Listener(Failing(OSError("no network")), "callback 'mine'", strict=True), Listener.of(after)]
    with pytest.raises(PluginError, match="callback 'mine': on_step failed: OSError: no network"):
        run(tmp_path, 1, 3, listeners=listeners)
    assert [event[0] for event in after.events] == ["start", "step"]
    assert lines(tmp_path)[-1]["event"] == "step"  # it is recorded before anybody is told


def test_callbacks_are_built_from_the_recipe_with_their_names() -> None:
    class Components:
        def get(self, kind: str, name: str) -> Any:
            assert (kind, name) == ("callback", "mine")
            return self

        def build(self, config: object) -> Callback:
            return Listening()

        def __str__(self) -> str:
            return "callback 'mine' of acme 1.0"

    built = build_callbacks([CallbackConfig(type="mine", strict=True), CallbackConfig(type="mine")], Components())  # type: ignore[arg-type]
    assert [(one.name, one.strict) for one in built] == [
        ("callback 'mine' of acme 1.0", strict) for strict in (True, False)
    ]


def test_the_end_of_a_run_that_never_began_is_no_error(tmp_path: Path) -> None:
    Recorder(tmp_path).on_end(0, RuntimeError("no data"))
    assert not (tmp_path / METRICS).exists()
