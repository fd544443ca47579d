"""Checkpoints of one process: whole or not there, passed over by name where damaged, and removed behind a whole one."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemWriter

from support.models.families import model_of
from zoo.training.checkpoints import store as store_module
from zoo.training.checkpoints.record import RECORD, damage_of
from zoo.training.checkpoints.state import TrainingState
from zoo.training.checkpoints.store import Checkpoints
from zoo.training.parallel.world import World
from zoo.training.recipe.sections import Keep
from zoo_core.errors import CheckpointError, SaveError


def state(value: float = 0.0) -> TrainingState:
    model: Any = model_of("ViT CLIP")
    with torch.no_grad():
        model.logit_scale.fill_(value)
    names, parameters = zip(*model.named_parameters(), strict=True)
    return TrainingState(model, torch.optim.AdamW([{"params": parameters, "names": names}]))


def store_of(folder: Path, report: Callable[[str], None] = lambda line: None, **keep: Any) -> Checkpoints:
    return Checkpoints(folder, World(), Keep(**keep), report=report)


def saved(folder: Path, *steps: int, **keep: Any) -> Path:
    store = store_of(folder, **keep)
    for step in steps:
        store.save(step, state(step), {"fact": step})
    store.close()
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_checkpoint_brings_back_weights_facts_and_step(tmp_path: Path) -> None:
    saved(tmp_path, 3)
    loaded = state()
    record = store_of(tmp_path).load(tmp_path / "step-00000003", loaded)
    assert loaded.model.logit_scale.item() == 3
    assert (record.step, record.world, record.facts) == (3, 1, {"fact": 3})


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a file changed": (lambda path: flip(path / "__0_0.distcp"), "__0_0.distcp has changed since it was written"),
    "a file cut": (lambda path: os.truncate(path / "__0_0.distcp", 100), "__0_0.distcp has 100 bytes, and had "),
    "a file gone": (lambda path: (path / "__0_0.distcp").unlink(), "1 of 2 files are missing, such as __0_0.distcp"),
    "metadata gone": (lambda path: (path / ".metadata").unlink(), "1 of 2 files are missing, such as .metadata"),
    "no record": (lambda path: (path / RECORD).unlink(), f"it has no {RECORD}"),
    "an empty record": (lambda path: os.truncate(path / RECORD, 0), f"{RECORD} is damaged: "),
    "a cut record": (lambda path: os.truncate(path / RECORD, 200), f"{RECORD} is damaged: "),
    "an empty folder": (lambda path: (shutil.rmtree(path), path.mkdir()), f"it has no {RECORD}"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_taken(tmp_path: Path, case: str) -> None:
    damage, message = DAMAGE[case]
    saved(tmp_path, 1, 2)
    damage(tmp_path / "step-00000002")
    lines: list[str] = []
    assert store_of(tmp_path, lines.append).latest() == tmp_path / "step-00000001"
    assert len(lines) == 1
    assert "step-00000002 is passed over: " in lines[0]
    assert message in lines[0]


def test_a_save_that_was_not_completed_is_named_and_later_removed(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    shutil.copytree(tmp_path / "step-00000001", tmp_path / "step-00000002.tmp")
    lines: list[str] = []
    assert store_of(tmp_path, lines.append).latest() == tmp_path / "step-00000001"
    assert lines == [f"{tmp_path / 'step-00000002.tmp'} is passed over: it was not completed"]
    saved(tmp_path, 3)
    assert names(tmp_path) == ["step-00000001", "step-00000003"]


def test_a_damaged_checkpoint_of_the_same_step_is_written_anew(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    flip(tmp_path / "step-00000002" / "__0_0.distcp")
    saved(tmp_path, 2)
    assert damage_of(tmp_path / "step-00000002") is None


def test_a_checkpoint_of_another_model_is_refused_by_name(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    other: Any = model_of("CustomTextCLIP")
    optimizer = torch.optim.SGD([{"params": list(other.parameters()), "names": list(dict(other.named_parameters()))}])
    with pytest.raises(CheckpointError, match="is of another model or optimizer: it lacks 'model.logit_bias'"):
        store_of(tmp_path).load(tmp_path / "step-00000001", TrainingState(other, optimizer))


@pytest.mark.parametrize(
    ("steps", "keep", "kept"),
    [
        ([1, 2], {"last": 2}, [1, 2]),
        ([1, 2, 3, 4], {"last": 2}, [3, 4]),
        ([1, 2, 3, 4], {"last": 3, "background": True}, [2, 3, 4]),
    ],
)
def test_the_last_checkpoints_stay(tmp_path: Path, steps: list[int], keep: dict[str, Any], kept: list[int]) -> None:
    saved(tmp_path, *steps, **keep)
    assert store_of(tmp_path).steps() == kept


@pytest.mark.parametrize(("mode", "best"), [("max", 2), ("min", 1)])
def test_the_best_one_stays_also_after_a_restart(tmp_path: Path, mode: str, best: int) -> None:
    for step, score in enumerate([0.1, 0.9, 0.2, None, 0.3, 0.4], start=1):
        store = store_of(tmp_path, last=2, best={"metric": "m", "mode": mode})  # each time as if anew
        store.save(step, state(), {}, score=score)
    assert store_of(tmp_path).steps() == [best, 5, 6]


def test_nothing_is_removed_where_the_new_one_is_not_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, 1, 2, last=2)
    sync = store_module._sync_folder

    def damage_after_rename(folder: Path) -> None:
        sync(folder)
        if folder == tmp_path:
            flip(tmp_path / "step-00000003" / "__0_0.distcp")

    monkeypatch.setattr(store_module, "_sync_folder", damage_after_rename)
    saved(tmp_path, 3, last=2)
    monkeypatch.undo()
    assert store_of(tmp_path).steps() == [1, 2, 3]
    assert store_of(tmp_path).latest() == tmp_path / "step-00000002"


def test_one_that_lost_a_file_does_not_count_among_the_last(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 3, last=3)
    (tmp_path / "step-00000003" / "__0_0.distcp").unlink()
    saved(tmp_path, 4, last=2)
    assert store_of(tmp_path).steps() == [2, 3, 4]


@pytest.mark.parametrize("background", [False, True])
def test_a_full_disk_is_one_error_and_leaves_nothing_torn(tmp_path: Path, background: bool) -> None:
    saved(tmp_path, 1)
    store = store_of(tmp_path, background=background)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # no file can grow beyond
    try:
        with pytest.raises(SaveError, match="step-00000002 cannot be written: process 0: ") as caught:
            store.save(2, state(), {})
            store.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["step-00000001"]
    store.save(3, state(), {})
    store.close()
    assert store.latest() == tmp_path / "step-00000003"


def test_an_interruption_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FileSystemWriter, "write_data", interrupt)
    with pytest.raises(KeyboardInterrupt):
        saved(tmp_path, 1)


def test_in_the_background_latest_moves_when_the_new_one_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 1)
    started, go_on = threading.Event(), threading.Event()
    finish = Checkpoints._finish

    def late(self: Checkpoints, *args: Any) -> None:
        started.set()
        go_on.wait(30)
        finish(self, *args)

    monkeypatch.setattr(Checkpoints, "_finish", late)
    announced: list[int] = []
    store = Checkpoints(tmp_path, World(), Keep(background=True), announce=lambda step, folder: announced.append(step))
    trained = state(2)
    store.save(2, trained, {})
    assert started.wait(30)
    with torch.no_grad():
        trained.model.logit_scale.fill_(99)  # training goes on
    assert store.latest() == tmp_path / "step-00000001"
    assert announced == []
    go_on.set()
    store.close()
    assert store.latest() == tmp_path / "step-00000002"
    assert announced == [2]
    loaded = state()
    store_of(tmp_path).load(tmp_path / "step-00000002", loaded)
    assert loaded.model.logit_scale.item() == 2


SAVING = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from zoo.training.checkpoints.store import Checkpoints
from zoo.training.parallel.world import World
from zoo.training.recipe.sections import Keep
from zoo_tests_store import state
store = Checkpoints(Path({folder!r}), World(), Keep(last=2, background={background}))
latest = store.latest()
step = int(latest.name[5:]) if latest else 0
trained = state(step)
print("ready", flush=True)
while True:
    step += 1
    trained.model.logit_scale.data.fill_(step)
    store.save(step, trained, {{"fact": step}})
"""


@pytest.mark.slow
@pytest.mark.parametrize("background", [False, True])
def test_a_kill_at_any_moment_of_a_save_leaves_whole_checkpoints(tmp_path: Path, background: bool) -> None:
    random, folder, inside = Random(background), tmp_path / "run", 0
    (tmp_path / "zoo_tests_store.py").symlink_to(Path(__file__))
    tests = str(Path(__file__).parents[3])
    script = SAVING.format(tests=tests, folder=str(folder), background=background)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(tmp_path)])}
    before = 0
    for _ in range(10):
        command = [sys.executable, "-c", script]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(random.random() * 0.3)
            process.send_signal(signal.SIGKILL)
        inside += any(path.name.endswith(".tmp") for path in folder.iterdir())
        for path in folder.glob("step-????????"):
            assert damage_of(path) is None, "what bears the name of a checkpoint is whole"
        latest = store_of(folder).latest()
        if latest is not None:
            loaded = state()
            record = store_of(folder).load(latest, loaded)
            assert loaded.model.logit_scale.item() == record.step == record.facts["fact"]
            assert record.step >= before
            before = record.step
    assert before > 0
    assert inside > 0, "some kills came inside of a save"


def test_the_record_holds_size_and_digest_of_every_file(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    files = json.loads((tmp_path / "step-00000001" / RECORD).read_text())["files"]
    assert {*files, RECORD} == {path.name for path in (tmp_path / "step-00000001").iterdir()}
