"""Two processes on this machine, each with half a batch: DDP and FSDP2 train as one process does with all of it.

All that two processes do is done once, by one pair of them, since starting them takes most of the time. They
meet through a file, so that no port is needed. How weights go into shards and back is in `sharding.py`, for all families.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from support.peer import captions, images, randomized, tiny_arguments
from zoo import CLIP, ClipLoss, CustomTextCLIP

WORLD = 2
BATCH = 4
KINDS = {"CLIP": CLIP, "CustomTextCLIP": CustomTextCLIP}
FULL = StateDictOptions(full_state_dict=True)


def model_of(kind: str) -> Any:
    return randomized(KINDS[kind](**tiny_arguments())).train()


def batch() -> tuple[Tensor, Tensor]:
    model = model_of("CLIP")
    return images(model, BATCH), captions(model, BATCH)


def step(model: Any, image: Tensor, text: Tensor) -> float:
    """Take one SGD step on a batch and return the loss before it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = ClipLoss()(*model(image, text))
    loss.backward()
    optimizer.step()
    return loss.item()


def single(kind: str) -> tuple[float, dict[str, Tensor]]:
    """Return loss and weights of the same step in one process, over the whole batch."""
    model = model_of(kind)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = ClipLoss()(*model(*batch()))
    loss.backward()
    optimizer.step()
    return loss.item(), model.state_dict()


def sharded(kind: str) -> Any:
    model = model_of(kind)
    for tower in (model.visual, model.text):
        for block in tower.transformer.resblocks:
            fully_shard(block)
    fully_shard(model)
    return model


def scalars(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a gathered state dict with the published shape of the logit scale, which shards hold as `[1]`."""
    return state | {"logit_scale": state["logit_scale"].reshape(())}


def run_ddp(rank: int, kind: str) -> dict[str, Any]:
    """Train one step with gradients that are averaged."""
    model = DistributedDataParallel(model_of(kind))
    loss = step(model, *(one.chunk(WORLD)[rank] for one in batch()))
    return {"loss": loss, "state": get_model_state_dict(model, options=FULL)}


def run_fsdp(rank: int, kind: str) -> dict[str, Any]:
    """Train one step with parameters that are sharded."""
    model = sharded(kind)
    loss = step(model, *(one.chunk(WORLD)[rank] for one in batch()))
    return {"loss": loss, "state": get_model_state_dict(model, options=FULL)}


RUNS = {
    "ddp": run_ddp,
    "fsdp": run_fsdp,
}


# FSDP2 of torch 2.6 asks a CPU stream for an event, which it has not: there, DDP alone is run.
SHARDS_ON_CPU = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 7)
needs_shards = pytest.mark.skipif(not SHARDS_ON_CPU, reason="FSDP2 runs on the CPU from torch 2.7 on")


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD)
    try:
        runs = RUNS if SHARDS_ON_CPU else {"ddp": run_ddp}
        found = {f"{name} {kind}": run(rank, kind) for name, run in runs.items() for kind in KINDS}
        torch.save(found, Path(folder) / f"{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return what each process found in each run."""
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(worker, (str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("run", ["ddp", pytest.param("fsdp", marks=needs_shards)])
def test_a_step_of_two_processes_is_the_step_of_one(found: list[dict[str, Any]], run: str, kind: str) -> None:
    loss, state = single(kind)
    of_each = [one[f"{run} {kind}"] for one in found]
    assert sum(one["loss"] for one in of_each) / WORLD == pytest.approx(loss, abs=1e-6)
    for one in of_each:
        torch.testing.assert_close(scalars(one["state"]), dict(state), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("run", ["ddp", pytest.param("fsdp", marks=needs_shards)])
def test_gathered_weights_load_into_a_model_of_one_process(found: list[dict[str, Any]], run: str, kind: str) -> None:
    alone = KINDS[kind](**tiny_arguments())
    gathered = found[0][f"{run} {kind}"]["state"]
    assert gathered.keys() == alone.state_dict().keys(), "the layout of the class, whatever wraps it"
    alone.load_state_dict(gathered)
    for key, value in alone.state_dict().items():
        assert torch.equal(value, gathered[key].reshape(value.shape)), key
