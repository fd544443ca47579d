"""Jobs of `zoo embed` that are killed lose no row that was written, repeat none, and leave a set that goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import zoo

pytest.importorskip("pyarrow")

JOB = """
import contextlib, os, random, shutil, signal, sys, time, warnings
from pathlib import Path
import numpy, torch, zoo
warnings.filterwarnings("ignore", category=DeprecationWarning)  # fork in a process with threads
import pyarrow.parquet as parquet
from zoo.cli.app import main
from zoo.embeddings import encode as embedding
from zoo.embeddings import store as embedding_sets
from zoo.embeddings.store import read_set

model, pictures, out, kills = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
loaded = zoo.load(model)
embedding.open_model = lambda *_, **__: loaded
torch.set_num_threads(1)
whole = embedding_sets.open_set
embedding_sets.open_set = lambda *args, **options: whole(*args, rows_per_part=3, **options)
wanted = sorted(str(path) for path in pictures.iterdir())
random.seed(0)

def child(prepare=lambda: None):
    if pid := os.fork():
        return pid
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    status = 70
    try:
        prepare()
        status = main(["embed", str(pictures), "--out", str(out), "--model", model, "--batch-size", "2", "--workers", "1"])
    finally:
        os._exit(status)

def status(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def held():
    contents = read_set(out)
    found = [*contents.ids, *(one.id for one in contents.errors)]
    assert len(set(found)) == len(found), "a row stands there twice"
    assert contents.vectors.shape == (len(contents.ids), 64), "torn"
    return contents

def files():
    return [one for pattern in ("part-*.parquet", "errors-*.parquet") for one in sorted(out.glob(pattern))]

def assert_finished():
    assert status(child()) < 2
    found = held()
    assert sorted([*found.ids, *(one.id for one in found.errors)]) == wanted
    rows = [row for one in files() for row in parquet.read_table(one, columns=["id"])["id"].to_pylist()]
    assert sorted(rows) == wanted, "a part holds a row that another replaced"
    assert not list(out.glob(".*.tmp"))
    return found
"""

AT_RANDOM = """
stages = set()
for kill in range(kills):
    before = len(files())
    pid = child()
    if kill % 10 == 0:  # while the manifest is written, of a set that begins anew
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        shutil.rmtree(out, ignore_errors=True)
        pid = child()
        while not list(out.glob(".embeddings.json.*.tmp")) and not (out / "embeddings.json").exists():
            time.sleep(0.0001)
        time.sleep(random.expovariate(1000))
    else:
        while kill % 2 and len(files()) == before and not os.waitpid(pid, os.WNOHANG)[0]:
            time.sleep(0.001)  # every other kill comes after a part was written
        time.sleep(random.expovariate(50))
    with contextlib.suppress(ProcessLookupError, ChildProcessError):  # it had nothing left to do
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    stages.add(len(held().ids) if (out / "embeddings.json").exists() else -1)
assert_finished()
print(len(stages))
"""

AT_EACH_STEP = """
import os, shutil, signal, sys, warnings
from pathlib import Path
import numpy
from zoo.embeddings.store import open_set, read_set
warnings.filterwarnings("ignore", category=DeprecationWarning)  # fork in a process with threads
pictures, out, begun = (Path(sys.argv[1]) / name for name in ("pictures", "set", "begun"))
pictures.mkdir()
wanted = [str(pictures / name) for name in "abcde"]
for name in wanted:
    Path(name).touch()

def embed(value):
    with open_set(out, 4, {}, rows_per_part=3) as made:
        for path in made.remaining(wanted):
            if path.endswith("b") and value == 1:
                made.refuse(path, ValueError("broken"))
            else:
                made.add([path], numpy.full((1, 4), value, numpy.float32))

def dies_at(step, value):
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    calls = 0
    def dying(function):
        def call(path, *arguments, **options):
            nonlocal calls
            calls += isinstance(path, int) or path.exists()
            if calls == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(path, *arguments, **options)
        return call
    os.fsync, Path.replace, Path.unlink = dying(os.fsync), dying(Path.replace), dying(Path.unlink)
    embed(value)
    os._exit(0)

steps = 0
for value, failed in ((1, [wanted[1]]), (2, [])):
    for step in range(1, 1000):
        shutil.rmtree(out, ignore_errors=True)
        if begun.exists():
            shutil.copytree(begun, out)
        died = dies_at(step, value)
        if (out / "embeddings.json").exists():
            found = read_set(out)
            held = [*found.ids, *(one.id for one in found.errors)]
            assert len(held) == len(set(held)), "a row stands there twice"
            assert set(held) == set(wanted) or not begun.exists(), "a row is lost"
        embed(value)
        found = read_set(out)
        assert sorted([*found.ids, *(one.id for one in found.errors)]) == wanted
        assert [one.id for one in found.errors] == failed
        now = {path: row[0] for path, row in zip(*found[:2])}
        assert all(now[path] == value for path in wanted[:2] if path in now), now
        assert not list(out.glob(".*.tmp"))
        if not died:
            break
        steps += 1
    shutil.copytree(out, begun, dirs_exist_ok=True)
    os.utime(wanted[0], (1000, 1000))
print(steps)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zoo.save(zoo.build("digits-tiny", pretrained="demo"), tmp_path_factory.mktemp("model") / "tiny")


def job(script: str, model: Path, folder: Path, pictures: int, kills: int) -> int:
    (folder / "pictures").mkdir()
    for number in range(pictures):
        Image.effect_noise((20, 30), 90).save(folder / "pictures" / f"{number:03}.png")
    (folder / "pictures" / "broken.png").touch()
    arguments = [str(model), str(folder / "pictures"), str(folder / "set"), str(kills)]
    done = subprocess.run([sys.executable, "-c", JOB + script, *arguments], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout)


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_a_killed_job_loses_no_row_and_repeats_none(kills: int, model: Path, tmp_path: Path) -> None:
    assert job(AT_RANDOM, model, tmp_path, 8 * kills, kills) > 1  # the kills came at several stages


def test_a_job_that_is_killed_before_any_of_its_steps_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-c", AT_EACH_STEP, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 12
