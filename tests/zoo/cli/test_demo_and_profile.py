"""`zoo demo` and `zoo profile`: the wiring, with a stand-in for what trains and what measures."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from support.command_line import Run, save_tiny


@pytest.fixture
def fake_demo(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo that trains nothing and saves a tiny model."""

    def run_demo(folder: str | Path, *, seed: int = 0, steps: int | None = None, progress: Any = None) -> Any:
        for step in range(1, 4):
            progress(step, 3, {"loss": 1 / step, "logit_scale": 10.0})
        target = save_tiny(Path(folder))
        shares = {"a {}": {"word": 0.5, "figure": 0.4}, "the digit {}": {"word": 0.75, "figure": 0.25}}
        result = types.SimpleNamespace(
            accuracy=0.625,
            template_accuracy=shares,
            test_digits=8,
            seconds=1.5,
            folder=target,
            picture=target / "demo.png",
            samples=tuple(pictures / "b.png" for _ in range(10)),
        )
        result.to_dict = lambda: {"accuracy": 0.625, "seed": seed, "steps": steps, "folder": str(target)}
        return result

    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    package, recipe = types.ModuleType("zoo.demo"), types.ModuleType("zoo.demo.settings")
    package.run_demo, recipe.WORDS = run_demo, words  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "zoo.demo", package)
    monkeypatch.setitem(sys.modules, "zoo.demo.settings", recipe)


def test_the_last_line_of_the_demo_is_a_command_that_works(
    run: Run, fake_demo: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run("demo")
    assert (status, err) == (0, "")
    assert "62.5%" in out
    assert "the digit {}  75.0%   25.0%" in out
    program, *arguments = shlex.split(out.splitlines()[-1])
    assert program == "zoo"
    assert arguments[arguments.index("--template") + 1] == "the digit {}"  # the best one
    assert arguments[arguments.index("--model") + 1] == "zoo-demo"
    status, out, err = run(*arguments)
    assert (status, err) == (0, "")
    assert "seven" in out


def test_the_demo_names_the_program_as_it_was_called_where_no_path_leads_to_it(
    run: Run, fake_demo: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [".venv/bin/zoo", "demo"])
    assert run("demo")[1].splitlines()[-1].startswith(".venv/bin/zoo classify ")


def test_the_demo_as_json_is_its_result(run: Run, fake_demo: None, tmp_path: Path) -> None:
    status, out, err = run("demo", "--out", tmp_path / "mine", "--seed", 3, "--steps", 7, "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == {"accuracy": 0.625, "seed": 3, "steps": 7, "folder": str(tmp_path / "mine")}


@pytest.fixture
def profiled(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the profiler was asked."""
    asked: dict[str, Any] = {}
    cost = {
        "parameters": 1_500_000,
        "parameter_bytes": 6_000_000,
        "macs": 2_500_000_000,
        "flops": 5_000_000_000,
        "latency": 0.25,
        "samples_per_second": 16.0,
        "peak_activation_bytes": 3 * 2**20,
    }
    report = {
        "parameters": 1_500_001,
        "parameter_bytes": 6_000_004,
        "towers": {"image": cost},
        "steps": 3,
        "hardware": {"device": "cpu", "cpu": "a processor", "gpu": None, "threads": 1, "torch": "2"},
        "trace": None,
    }

    def profile_towers(model: Any, towers: Any, batches: Any, **arguments: Any) -> Any:
        shapes = {name: tuple(batch.shape) for name, batch in batches.items()}
        asked.update(arguments, model=type(model).__name__, towers=list(towers), batches=shapes)
        return types.SimpleNamespace(to_dict=lambda: report)

    module = types.ModuleType("zoo.inference.profiling")
    module.profile_towers = profile_towers  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "zoo.inference.profiling", module)
    return asked


def test_profile_measures_the_model_with_its_own_sizes(
    run: Run, tiny: Path, profiled: dict[str, Any], tmp_path: Path
) -> None:
    options = ["--batch-size", 4, "--steps", 3, "--device", "cpu", "--trace", tmp_path]
    status, out, err = run("profile", tiny, *options)
    assert (status, err) == (0, "")
    assert profiled == {
        "model": "CLIP",
        "towers": ["image", "text"],
        "batches": {"image": (4, 3, 16, 16), "text": (4, 16)},
        "steps": 3,
        "device": "cpu",
        "trace_dir": tmp_path,
    }
    assert out.splitlines()[1].split() == ["image", "1.5M", "2.5G", "5.0G", "250.0", "16.0", "3.0"]
    assert "a processor" in out
    assert str(tiny) in out


def test_profile_as_json_is_the_report(run: Run, tiny: Path, profiled: dict[str, Any]) -> None:
    status, out, err = run("profile", tiny, "--json", "--no-trace")
    assert (status, err) == (0, "")
    assert json.loads(out)["towers"]["image"]["macs"] == 2_500_000_000
    assert json.loads(out)["model"] == str(tiny)
    assert profiled["trace_dir"] is None


def test_profile_really_measures_and_writes_a_trace_for_tensorboard(tiny: Path, tmp_path: Path) -> None:
    program = f"from zoo.cli.app import main; import sys; sys.argv = ['zoo', 'profile', {str(tiny)!r}, '--steps', '1']; main()"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list((tmp_path / "zoo-profile").glob("*.pt.trace.json.gz"))) == 1
    assert done.stdout.splitlines()[-1] == "tensorboard --logdir zoo-profile"
    image, text = (line.split() for line in done.stdout.splitlines()[1:3])
    assert (image[0], text[0]) == ("image", "text")


def test_profile_of_a_device_that_is_none_is_an_error(run: Run, tiny: Path, profiled: dict[str, Any]) -> None:
    status, _, err = run("profile", tiny, "--device", "abacus")
    assert status == 2
    assert err.startswith("error: device 'abacus' is none")
