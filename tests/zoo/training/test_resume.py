"""Runs that are killed, stopped, continued and branched: the weights are those of a run that nothing ended."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

import zoo
import zoo.training
from support.killed_runs import run_until, run_zoo
from support.training import records, tiny_recipe, weights_digest, write_pairs, write_recipe
from zoo.training.checkpoints.record import damage_of
from zoo_core.errors import CheckpointError, DataError, InputError, SaveError, ZooWarning


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs")


def lively(pairs: Path, **changes: Any) -> dict[str, Any]:
    """A recipe with chance in everything: crops, patch dropout, a broken picture."""
    recipe = tiny_recipe(pairs, **changes)
    model = recipe["model"]
    vision = {**model["vision"], "patch_dropout": 0.5}
    return {
        **recipe,
        "model": {**model, "vision": vision, "preprocess": {"type": "image", "train": {"scale": [0.3, 1]}}},
    }


@pytest.fixture(scope="module")
def undisturbed(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights of a run that nothing ended."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    zoo.train(lively(pairs), out=folder)
    return weights_digest(folder)


KILLS = {
    0: ("disk 1", "disk 2", "disk 5", "step 1", "disk 8", "step 3", "disk 4", "disk 9", "step 5", "disk 12"),
    1: ("step 3", "disk 6"),
    2: ("step 3",),
}


@pytest.mark.parametrize("workers", KILLS)
def test_a_run_that_is_killed_again_and_again_ends_in_the_same_weights(
    pairs: Path, undisturbed: str, tmp_path: Path, workers: int
) -> None:
    recipe, run = lively(pairs), tmp_path / "run"
    recipe["data"] = {**recipe["data"], "workers": workers}
    for moment in KILLS[workers]:
        assert run_until(recipe, run, moment) == -signal.SIGKILL, moment
        assert [path for path in (run / "checkpoints").glob("step-????????") if damage_of(path)] == []
    assert run_until(recipe, run) == 0
    assert weights_digest(run) == undisturbed
    assert [line["step"] for line in records(run) if line["event"] == "step"] == [1, 2, 3, 4, 5, 6]


def interrupted(recipe: dict[str, Any], run: Path, step: int) -> None:
    """Leave a run in the middle of a step, as an error would."""
    with zoo.training.prepare(recipe, out=run) as prepared:
        for batch in prepared:
            prepared.step(batch)
            if prepared.done == step:
                break


STATES: dict[str, dict[str, Any]] = {
    "average": {"ema": {"decay": 0.9, "start": 1}, "evaluate": {"use": "ema"}},
    "fp16": {"precision": "fp16"},
    "bf16": {"precision": "bf16"},
    "chunks": {"batch": {"size": 4, "chunk": 2}},
    "sgd": {"optimizer": {"type": "sgd", "lr": 0.1}},
    "muon": {"optimizer": {"type": "muon", "lr": 1e-3}},
    "schedule-free": {"optimizer": {"type": "adamw-schedulefree"}, "schedule": {"type": "constant", "steps": 6}},
    "lamb": {"optimizer": {"type": "timm", "name": "lamb"}},
    "adafactor": {"optimizer": {"type": "timm", "name": "adafactor"}},
    "background": {"keep": {"steps": 1, "background": True}},
}


@pytest.mark.parametrize("name", STATES)
def test_whatever_a_run_keeps_goes_through_a_checkpoint(pairs: Path, tmp_path: Path, name: str) -> None:
    if name == "schedule-free":
        pytest.importorskip("schedulefree")
    recipe = lively(pairs, **STATES[name])
    zoo.train(recipe, out=tmp_path / "whole")
    interrupted(recipe, tmp_path / "run", 3)
    zoo.train(recipe, out=tmp_path / "run")
    assert weights_digest(tmp_path / "run") == weights_digest(tmp_path / "whole")


def test_sigterm_saves_and_the_same_command_goes_on(pairs: Path, undisturbed: str, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", lively(pairs, keep={"steps": None}))
    command = ("train", str(recipe), "data.workers=1", "--out", str(tmp_path / "run"))
    assert run_zoo(*command, moment="step 3") == 143
    (last,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert int(last.name[5:]) in (3, 4) and damage_of(last) is None
    assert run_zoo(*command) == 0
    assert weights_digest(tmp_path / "run") == undisturbed


def test_a_run_stops_after_its_minutes_and_goes_on(pairs: Path, undisturbed: str, tmp_path: Path) -> None:
    result = zoo.train(lively(pairs), overrides=["stop.minutes=1e-9"], out=tmp_path / "run")
    assert (result.stopped, result.step) == ("stop.minutes", 1)
    zoo.train(lively(pairs), out=tmp_path / "run")
    assert weights_digest(tmp_path / "run") == undisturbed


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(
    pairs: Path, undisturbed: str, tmp_path: Path
) -> None:
    interrupted(lively(pairs), tmp_path / "run", 5)
    (file,) = (tmp_path / "run" / "checkpoints" / "step-00000004").glob("*.distcp")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.warns(ZooWarning, match=r"step-00000004 is passed over: \S+ has changed since it was written"):
        zoo.train(lively(pairs), out=tmp_path / "run")
    assert weights_digest(tmp_path / "run") == undisturbed


def test_another_recipe_in_the_folder_is_refused_with_the_keys_that_differ(pairs: Path, tmp_path: Path) -> None:
    interrupted(tiny_recipe(pairs), tmp_path / "run", 1)
    with pytest.raises(InputError) as caught:
        zoo.train(tiny_recipe(pairs, seed=3), overrides=["optimizer.lr=0.002"], out=tmp_path / "run")
    assert "holds a run of another recipe: " in str(caught.value)
    assert "optimizer.lr is 0.001 there, 0.002 here" in str(caught.value)
    assert "seed is 0 there, 3 here" in str(caught.value)


FREE = ("log.every=5", "keep.steps=1", "data.workers=1", "data.prefetch=3", "stop.minutes=50", "parallel.timeout=9")


@pytest.mark.parametrize("override", FREE)
def test_what_decides_no_weight_may_change(
    pairs: Path, tmp_path: Path, override: str, stopped: Path, undisturbed: str
) -> None:
    shutil.copytree(stopped, tmp_path / "run")
    zoo.train(lively(pairs), overrides=[override], out=tmp_path / "run")
    assert weights_digest(tmp_path / "run") == undisturbed


@pytest.fixture(scope="module")
def stopped(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has gone five steps of six, with checkpoints after the second and fourth."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    interrupted(lively(pairs), folder, 5)
    return folder


def test_changed_data_is_refused(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs")
    interrupted(tiny_recipe(pairs), tmp_path / "run", 3)
    write_pairs(pairs, 25)
    with pytest.raises(DataError, match=r"the data changed since step-00000002 was written .*train\[0\].*; restore it"):
        zoo.train(tiny_recipe(pairs), out=tmp_path / "run")


def test_a_folder_with_a_run_is_not_begun_anew(pairs: Path, stopped: Path) -> None:
    with pytest.raises(InputError, match="holds a run already; choose another folder"):
        zoo.train(lively(pairs), out=stopped, resume="never")


def test_a_folder_of_something_else_is_left_alone(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("chapter 1")
    with pytest.raises(SaveError, match="holds something else than a run"):
        zoo.train(tiny_recipe(pairs), out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_goes_on_from_a_checkpoint_of_another_folder(
    pairs: Path, stopped: Path, undisturbed: str, tmp_path: Path
) -> None:
    start = stopped / "checkpoints" / "step-00000002"
    zoo.train(lively(pairs), out=tmp_path / "run", resume=start)
    assert weights_digest(tmp_path / "run") == undisturbed
    assert [line["step"] for line in records(tmp_path / "run") if line["event"] == "step"] == [3, 4, 5, 6]


@pytest.mark.parametrize(
    ("steps", "place", "message"),
    [
        (6, "nowhere", "nowhere is no checkpoint; name a folder such as runs/NAME/checkpoints/step-00001000"),
        (6, "step-00000002/.metadata", "is no checkpoint"),
        (6, ".", r"is no whole checkpoint: it has no COMPLETE\.json"),
        (4, "step-00000004", "is of step 4, and this recipe ends after step 4"),
        (3, "step-00000004", "is of step 4, and this recipe ends after step 3"),
    ],
)
def test_what_is_no_checkpoint_to_go_on_from_is_refused(
    pairs: Path, stopped: Path, tmp_path: Path, steps: int, place: str, message: str
) -> None:
    recipe = lively(pairs, schedule={"type": "constant", "steps": steps})
    with pytest.raises((CheckpointError, InputError), match=message):
        zoo.train(recipe, out=tmp_path / "run", resume=stopped / "checkpoints" / place)


def test_a_checkpoint_of_another_model_is_refused(pairs: Path, stopped: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(pairs)
    recipe["overrides"] = ["text.layers=2"]
    with pytest.raises(CheckpointError, match=r"step-00000004 is of another model or optimizer: it lacks 'model\.text"):
        zoo.train(recipe, out=tmp_path / "run", resume=stopped / "checkpoints" / "step-00000004")


def test_a_cooldown_branches_off_a_checkpoint(pairs: Path, tmp_path: Path) -> None:
    wsd = {"type": "wsd", "warmup": 1}
    interrupted(lively(pairs, schedule={**wsd, "steps": 10, "cooldown": 0.2}), tmp_path / "long", 5)
    short = lively(pairs, schedule={**wsd, "steps": 6, "cooldown": 1 / 3})
    zoo.train(short, out=tmp_path / "branch", resume=tmp_path / "long" / "checkpoints" / "step-00000004")
    zoo.train(short, out=tmp_path / "whole")
    assert weights_digest(tmp_path / "branch") == weights_digest(tmp_path / "whole")


def test_a_branch_that_was_killed_goes_on_with_the_same_command(
    pairs: Path, stopped: Path, undisturbed: str, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", lively(pairs, keep={"steps": 1}))
    start = stopped / "checkpoints" / "step-00000002"
    command = ("train", str(recipe), "--out", str(tmp_path / "run"), "--resume", str(start))
    assert run_zoo(*command, moment="step 5", number=signal.SIGKILL) == -signal.SIGKILL
    assert run_zoo(*command) == 0
    assert weights_digest(tmp_path / "run") == undisturbed
    assert [line["step"] for line in records(tmp_path / "run") if line["event"] == "step"] == [3, 4, 5, 6]


@pytest.mark.parametrize(
    ("override", "status"), [("batch.size=0", 2), ("batch.size=100", 3), ("data.train.path=nowhere", 3)]
)
def test_the_exit_status_tells_wrong_recipes_from_wrong_data(
    pairs: Path, tmp_path: Path, override: str, status: int
) -> None:
    from zoo.cli.app import main

    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_recipe(pairs))
    assert main(["train", str(recipe), override, "--out", str(tmp_path / "run")]) == status
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_run_without_an_upper_bound_of_the_scale_goes_on(pairs: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(pairs, scale={"max": None})
    interrupted(recipe, tmp_path / "run", 3)
    assert zoo.train(recipe, out=tmp_path / "run").step == 6
