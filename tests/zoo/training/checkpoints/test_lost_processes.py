"""A process that is killed inside of a save ends the other one, and the checkpoint before stays the latest."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.checkpoint.filesystem import FileSystemWriter

from support.models.families import model_of
from zoo.training.checkpoints.record import damage_of
from zoo.training.checkpoints.state import TrainingState
from zoo.training.checkpoints.store import Checkpoints
from zoo.training.parallel.watchdog import Watchdog
from zoo.training.parallel.world import World
from zoo.training.recipe.sections import Keep
from zoo_core.errors import TrainingError

TIMEOUT = 20.0
MOMENTS = {"writing": (FileSystemWriter, "write_data", 1), "finishing": (Checkpoints, "_finish", 0)}
"""What the process of a rank does when it is killed."""


def kill_at(moment: str, rank: int) -> None:
    owner, name, victim = MOMENTS[moment]
    work = getattr(owner, name)

    def die(self: Any, *args: Any) -> Any:
        if rank == victim and any("step-00000003" in str(value) for value in (*args, getattr(self, "path", ""))):
            os.kill(os.getpid(), signal.SIGKILL)
        return work(self, *args)

    setattr(owner, name, die)


def worker(rank: int, folder: str, moment: str, background: bool) -> None:
    torch.set_num_threads(1)
    timeout = timedelta(seconds=TIMEOUT)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=timeout)
    kill_at(moment, rank)
    world, model = World(rank, 2), model_of("ViT CLIP")
    optimizer = torch.optim.SGD([{"params": list(model.parameters()), "names": list(dict(model.named_parameters()))}])
    try:
        with Watchdog(Path(folder), world, timeout=TIMEOUT, interval=0.1, grace=2.0) as watchdog:
            store = Checkpoints(Path(folder) / "checkpoints", world, Keep(background=background))
            for step in range(1, 6):
                with watchdog.doing(f"step {step}: checkpoint"):
                    store.save(step, TrainingState(model, optimizer), {})
    except TrainingError as error:
        (Path(folder) / f"{rank}.txt").write_text(str(error))
        os._exit(3)


@pytest.mark.slow
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_inside_of_a_save_ends_the_other_and_leaves_the_checkpoint_before(
    tmp_path: Path, moment: str, background: bool
) -> None:
    victim = MOMENTS[moment][2]
    context: Any = mp.get_context("spawn")
    processes = [context.Process(target=worker, args=(rank, str(tmp_path), moment, background)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert processes[victim].exitcode == -signal.SIGKILL
    assert processes[1 - victim].exitcode == 3
    message = (tmp_path / f"{1 - victim}.txt").read_text()
    assert message.startswith(f"rank {victim} (")
    assert " is gone; it was at step " in message
    folder = tmp_path / "checkpoints"
    assert (folder / "step-00000003.tmp").is_dir()
    lines: list[str] = []
    store = Checkpoints(folder, World(), Keep(), report=lines.append)
    assert store.latest() == folder / "step-00000002"
    assert damage_of(folder / "step-00000002") is None
    assert lines == [f"{folder / 'step-00000003.tmp'} is passed over: it was not completed"]
