"""The progress bar and the curves of a run."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from zoo.training.record.curves import _panels, draw_curves
from zoo.training.record.jsonl import METRICS
from zoo.training.record.progress import Progress
from zoo_core.errors import DataError, MissingDependencyError
from zoo_core.training import StepRecord


def shown(metrics: dict[str, float]) -> str:
    screen = io.StringIO()
    progress = Progress(Console(file=screen, force_terminal=True, width=140))
    progress.on_start(Path("run"), {}, 40)
    progress.on_step(StepRecord(50, 200, 3_200, metrics))
    progress.on_evaluate(50, {"zero-shot/accuracy": 0.91234, "validation/loss": 1.5})
    progress.advance(55, 200)
    progress.on_end(55, None)
    return screen.getvalue()


def test_the_bar_shows_steps_loss_rate_and_waiting() -> None:
    text = shown({"loss": 1.23456, "samples_per_second": 641.2, "data_wait": 0.021, "lr": 0.1})
    assert "loss 1.235, 641.2 samples/s, 2% waiting for data" in text
    assert "55/200" in text


def test_the_bar_tells_of_evaluations_and_of_what_was_measured_alone() -> None:
    text = shown({"loss": float("nan")})
    assert "step 50: zero-shot/accuracy 0.9123, validation/loss 1.5" in text
    assert "loss nan" in text
    assert "samples/s" not in text


def test_what_is_printed_to_a_file_meanwhile_gets_there(capfd: pytest.CaptureFixture[str]) -> None:
    progress = Progress(Console(file=io.StringIO(), force_terminal=True))
    progress.on_start(Path("run"), {}, 0)
    print("an answer")
    progress.on_end(0, None)
    assert capfd.readouterr().out == "an answer\n"


def test_nothing_is_printed_where_standard_error_is_no_terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not sys.stderr.isatty()
    progress = Progress()
    progress.on_start(Path("run"), {}, 0)
    progress.on_step(StepRecord(1, 2, 4, {"loss": 1.0}))
    progress.on_evaluate(1, {"validation/loss": 1.0})
    progress.on_end(1, None)
    assert capfd.readouterr() == ("", "")


def record(folder: Path, *entries: dict[str, Any]) -> Path:
    (folder / METRICS).write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return folder


def test_curves_are_grouped_by_what_they_measure_and_the_last_value_of_a_step_counts(tmp_path: Path) -> None:
    record(
        tmp_path,
        {"event": "start", "step": 0, "time": 1.0},
        {"event": "step", "step": 1, "steps": 9, "samples": 4, "time": 1.0, "loss": 2.0, "lr": 0.1},
        {"event": "step", "step": 2, "time": 1.0, "loss": "nan", "lr": 0.2, "note": "words"},
        {"event": "evaluate", "step": 2, "validation/loss": 3.0, "digits/top1": 0.5, "digits/top5": 0.9},
        {"event": "evaluate", "step": 2, "digits/top1": 0.6},
        {"event": "end", "step": 2, "seconds": 4},
    )
    panels = _panels(tmp_path / METRICS)
    assert list(panels) == ["loss", "lr", "digits"]
    assert panels["lr"] == {"lr": {1: 0.1, 2: 0.2}}
    assert panels["digits"] == {"digits/top1": {2: 0.6}, "digits/top5": {2: 0.9}}
    assert panels["loss"]["validation/loss"] == {2: 3.0}
    assert panels["loss"]["loss"][2] != panels["loss"]["loss"][2]


def test_the_curves_of_a_run_are_a_picture_beside_its_record(tmp_path: Path) -> None:
    steps = [{"event": "step", "step": step, "loss": 1 / step, "lr": 0.1, "a": 1, "b": 2} for step in (1, 2, 3)]
    path = draw_curves(record(tmp_path, *steps, {"event": "evaluate", "step": 3, "validation/loss": 1.0}))
    assert path == tmp_path / "curves.png"
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 20
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["curves.png", METRICS]


def test_a_record_without_metrics_has_no_picture(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no metrics to draw; a run writes them every log.every steps"):
        draw_curves(record(tmp_path, {"event": "start", "step": 0}))
    with pytest.raises(DataError, match="holds no metrics"):
        draw_curves(tmp_path / "nowhere")


def test_curves_say_what_to_install_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match="run: pip install matplotlib"):
        draw_curves(record(tmp_path, {"event": "step", "step": 1, "loss": 1.0}))
