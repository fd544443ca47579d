"""Runs of several processes: killed, restarted, and continued by another number of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.torchrun import batches, torchrun
from support.training import tiny_recipe, weights_digest, write_pairs
from zoo.training.checkpoints.record import damage_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs")


def recipe_of(pairs: Path, mode: str = "auto", **changes: Any) -> dict[str, Any]:
    parallel = {"mode": mode, "timeout": 60.0}
    return {**tiny_recipe(pairs, batch={"size": 8}, keep={"steps": 1, "last": 9}), "parallel": parallel, **changes}


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_processes_that_are_killed_end_in_the_weights_of_those_that_are_not(
    pairs: Path, tmp_path: Path, mode: str
) -> None:
    recipe = recipe_of(pairs, mode)
    assert torchrun(2, recipe, tmp_path / "whole").returncode == 0
    run = tmp_path / "run"
    for kills in ([(0, 1), (1, 1)], [(1, 3)], [(0, 4)]):
        assert torchrun(2, recipe, run, kills=kills).returncode != 0
        assert [path for path in (run / "checkpoints").glob("step-????????") if damage_of(path)] == []
    assert torchrun(2, recipe, run).returncode == 0
    assert weights_digest(run) == weights_digest(tmp_path / "whole")


def test_torchrun_starts_all_processes_again_where_one_dies(pairs: Path, tmp_path: Path) -> None:
    recipe = recipe_of(pairs)
    assert torchrun(2, recipe, tmp_path / "whole").returncode == 0
    finished = torchrun(2, recipe, tmp_path / "run", kills=[(1, 3)], restarts=1)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert weights_digest(tmp_path / "run") == weights_digest(tmp_path / "whole")


def test_another_number_of_processes_goes_on_with_the_same_batches(pairs: Path, tmp_path: Path) -> None:
    assert torchrun(1, recipe_of(pairs), tmp_path / "one").returncode == 0
    run = tmp_path / "run"
    for processes, leave in ((2, 2), (1, 4), (4, None)):
        finished = torchrun(processes, recipe_of(pairs), run, leave=leave)
        assert finished.returncode == 0, finished.stderr[-2000:]
    expected, found = batches(tmp_path / "one"), batches(run)
    assert sorted(found) == [1, 2, 3, 4, 5, 6]
    for step, (keys, loss) in expected.items():
        assert found[step][0] == keys, step
        assert found[step][1] == pytest.approx(loss, abs=1e-5), step
