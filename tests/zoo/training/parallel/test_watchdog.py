"""A process that is killed, fails or hangs ends the others, which say which one, at which step, and in what."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from zoo.training.parallel.watchdog import Watchdog
from zoo.training.parallel.world import World
from zoo_core.errors import DataError, TrainingError

TIMEOUT = 3.0


def misbehave(how: str) -> None:
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "sleeping":
        time.sleep(600)
    elif how == "failing":
        raise DataError("pairs.csv: no such row")


def worker(rank: int, size: int, how: str, folder: str) -> None:
    """Take steps of which rank 1 does not survive the third; write down the error, and end."""
    output = os.open(f"{folder}/{rank}.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 2)
    torch.set_num_threads(1)
    timeout = timedelta(seconds=TIMEOUT)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size, timeout=timeout)
    try:
        with Watchdog(Path(folder), World(rank, size), timeout=TIMEOUT, interval=0.1, grace=1.0) as watchdog:
            for step in range(1, 5):
                with watchdog.doing(f"step {step}: batch"):
                    if rank == 1 and step == 3:
                        misbehave(how)
                with watchdog.doing(f"step {step}: gradients"):
                    dist.all_reduce(torch.ones(()))
    except (TrainingError, DataError) as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(3)


def run(folder: Path, how: str, size: int = 2) -> tuple[list[int | None], list[str], float]:
    """Return exit codes, what each process wrote, and the seconds until the last one was gone."""
    context: Any = mp.get_context("spawn")
    processes = [context.Process(target=worker, args=(rank, size, how, str(folder))) for rank in range(size)]
    for process in processes:
        process.start()
    start = time.monotonic()
    for process in processes:
        process.join(60)
    seconds = time.monotonic() - start
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes, [(folder / f"{rank}.txt").read_text(encoding="utf-8") for rank in range(size)], seconds


def test_a_killed_process_ends_the_others_which_name_it(tmp_path: Path) -> None:
    codes, output, _ = run(tmp_path, "killed", size=3)
    assert codes == [3, -signal.SIGKILL, 3]
    for rank in (0, 2):
        assert "TrainingError: rank 1 (" in output[rank]
        assert ") is gone; it was at step 3: batch; " in output[rank]
        assert f"rank {rank} is at step 3: gradients, and waits no longer than 3 s; " in output[rank]
        assert "start the run again, and it goes on from its last checkpoint" in output[rank]


def test_a_hanging_process_ends_with_the_others_after_the_timeout(tmp_path: Path) -> None:
    codes, output, _ = run(tmp_path, "sleeping")
    assert codes == [3, 1]
    assert "TrainingError: rank 1 (" in output[0]
    assert ") has been at step 3: batch for " in output[0]
    assert "error: rank 1 (" in output[1], "the one that hangs says so too, and ends at once"


def test_an_error_of_one_process_is_told_by_the_others(tmp_path: Path) -> None:
    codes, output, _ = run(tmp_path, "failing")
    assert codes == [3, 3]
    assert "DataError: pairs.csv" in output[1]
    assert "ended at step 3: batch: pairs.csv: no such row; rank 0 is at step 3: gradients" in output[0]


def test_processes_that_end_well_leave_each_other_alone(tmp_path: Path) -> None:
    codes, output, _ = run(tmp_path, "nothing")
    assert codes == [0, 0]
    assert output == ["", ""]


def test_a_process_alone_is_not_watched_and_keeps_its_errors(tmp_path: Path) -> None:
    watchdog = Watchdog(tmp_path, World(), timeout=1)
    with pytest.raises(RuntimeError, match="shapes"), watchdog, watchdog.doing("step 1"):
        raise RuntimeError("shapes")
    assert not list(tmp_path.iterdir())
