"""Callbacks that write to other libraries: what each of those is called with, and that none stops a run."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import zoo_loggers.plugin as plugin
from zoo.training.record.dispatch import Listener, build_callbacks
from zoo.training.record.recorder import Recorder
from zoo_core.config import CallbackConfig
from zoo_core.errors import MissingDependencyError, PluginError
from zoo_core.plugin import ComponentSpec
from zoo_core.registry.component import Component, Plugin
from zoo_core.training import Callback, StepRecord
from zoo_loggers.config import TensorBoardConfig, TrackioConfig, WandbConfig

RECIPE = {"model": "digits-tiny", "batch": {"size": 4}}
SPECS = {spec.name: spec for spec in plugin.zoo_components()}


class Calls(types.ModuleType):
    """A module that remembers how it and the run that it begins are called; some calls fail."""

    def __init__(self, *failing: str) -> None:
        super().__init__("fake")
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self._failing = failing

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **options: Any) -> Calls:
            self.calls.append((name, args, options))
            if name in self._failing:
                raise ConnectionError(f"{name} refused")
            return self

        return call


def component(name: str) -> Component:
    return Component(SPECS[name], Plugin("loggers", "zoo_loggers.plugin", "clip-zoo", "1.0"))


def build(config: CallbackConfig) -> Callback:
    module, _, factory = SPECS[config.type].factory.partition(":")
    return getattr(importlib.import_module(module), factory)(config)


def run(folder: Path, config: CallbackConfig, *, done: int = 0, error: BaseException | None = None) -> list[str]:
    """Train for a step and evaluate; return what is reported."""
    reports: list[str] = []
    listener = Listener(build(config), f"callback '{config.type}'", config.strict)
    recorder = Recorder(folder, [listener], reports.append)
    recorder.on_start(RECIPE, done)
    recorder.on_step(StepRecord(done + 1, 9, 4 * (done + 1), {"loss": 0.5}))
    recorder.on_evaluate(done + 1, {"zero-shot/top1": 0.75})
    recorder.on_save(done + 1, folder)
    recorder.on_end(done + 1, error)
    return reports


def test_wandb_is_told_of_the_recipe_and_of_every_metric_against_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = Calls()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    folder = tmp_path / "digits"
    folder.mkdir()
    assert run(folder, WandbConfig(project="mine", tags=["small"], mode="offline")) == []
    names, args, options = zip(*wandb.calls, strict=True)
    assert names == ("init", "define_metric", "log", "log", "finish")
    run_id = options[0].pop("id")
    assert options[0] == {
        "project": "mine",
        "entity": None,
        "name": "digits",
        "group": None,
        "tags": ["small"],
        "mode": "offline",
        "dir": str(folder),
        "resume": "allow",
        "config": RECIPE,
        "allow_val_change": True,
    }
    assert (args[1], options[1]) == (("*",), {"step_metric": "step"})
    assert args[2:4] == (({"train/loss": 0.5, "step": 1, "samples": 4},), ({"zero-shot/top1": 0.75, "step": 1},))
    assert options[4] == {"exit_code": 0}

    wandb.calls.clear()
    run(folder, WandbConfig(), done=5, error=RuntimeError("no power"))
    assert wandb.calls[0][2]["id"] == run_id  # a resumed run goes on in the same curves
    assert wandb.calls[-1] == ("finish", (), {"exit_code": 1})


def test_trackio_is_told_of_the_recipe_and_of_every_metric_at_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trackio = Calls()
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    assert run(tmp_path, TrackioConfig(name="first", space_id="me/space"), done=3) == []
    assert trackio.calls == [
        (
            "init",
            (),
            {"project": "zoo", "name": "first", "config": RECIPE, "resume": "allow", "space_id": "me/space"},
        ),
        ("log", ({"train/loss": 0.5, "samples": 16},), {"step": 4}),
        ("log", ({"zero-shot/top1": 0.75},), {"step": 4}),
        ("finish", (), {}),
    ]


def test_tensorboard_reads_every_metric_and_no_step_twice_after_a_resume(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for done in (0, 1, 2, 1):  # killed after step 3, and resumed after step 1
        assert run(tmp_path, TensorBoardConfig(), done=done) == []
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2]
    assert [event.value for event in events.Scalars("zero-shot/top1")] == [0.75] * 2
    text = events.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "model: digits-tiny\nbatch:\n  size: 4" in text


def test_tensorboard_writes_into_the_folder_that_its_config_names(tmp_path: Path) -> None:
    run(tmp_path, TensorBoardConfig(folder=str(tmp_path / "elsewhere")))
    assert list((tmp_path / "elsewhere").iterdir())
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.parametrize("config", [WandbConfig(), TrackioConfig()], ids=lambda config: config.type)
@pytest.mark.parametrize("failing", ["init", "log", "finish"])
def test_a_library_that_fails_at_any_call_stops_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: CallbackConfig, failing: str
) -> None:
    monkeypatch.setitem(sys.modules, config.type, Calls(failing))
    (report,) = run(tmp_path, config)
    assert f"ConnectionError: {failing} refused; the run goes on without it" in report


def test_a_strict_one_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", Calls("init"))
    with pytest.raises(PluginError, match="callback 'wandb': on_start failed: ConnectionError: init refused"):
        run(tmp_path, WandbConfig(strict=True))


@pytest.mark.parametrize("config", [TensorBoardConfig(), WandbConfig(), TrackioConfig()], ids=lambda one: one.type)
def test_a_package_that_is_missing_is_named_before_the_run(
    monkeypatch: pytest.MonkeyPatch, config: CallbackConfig
) -> None:
    class Components:
        def get(self, kind: str, name: str) -> Component:
            return component(name)

    def none(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", none)
    with pytest.raises(MissingDependencyError, match=f"callback '{config.type}' .* run: pip install {config.type}"):
        build_callbacks([config], Components())  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_each_config_is_that_of_its_component(spec: ComponentSpec) -> None:
    config_class: Any = component(spec.name).config_class()
    assert issubclass(config_class, CallbackConfig)
    assert config_class().type == spec.name


def test_the_plugin_is_declared_without_heavy_imports() -> None:
    import subprocess

    code = "import sys, zoo_loggers.plugin, zoo_loggers.config; print({'torch', 'tensorboard'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
