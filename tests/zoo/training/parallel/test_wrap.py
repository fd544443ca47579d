"""DDP, FSDP2 and HSDP train as one process does with the whole batch, however blocks are compiled or recomputed.

All that two processes do is done by one pair of them, since starting them takes most of the time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

import zoo
from support.models.families import FAMILIES, model_of, pictures, words
from support.peer import randomized
from zoo.training.gradients.step import contrastive_step
from zoo.training.gradients.wrapped_model import bare_model
from zoo.training.parallel.world import World
from zoo.training.parallel.wrap import choose_mode, fsdp_blocks, wrap
from zoo.training.recipe.sections import Parallel
from zoo_core.nn.state_dict import own_state_dict

WORLD, BATCH = 2, 6
STEPS = {"ViT CLIP": 10, "CoCa": 2}
# FSDP2 of torch 2.6 asks a CPU stream for an event, which it has not
SHARDS_ON_CPU = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 7)
needs_shards = pytest.mark.skipif(not SHARDS_ON_CPU, reason="FSDP2 runs on the CPU from torch 2.7 on")

RUNS: dict[str, dict[str, Any]] = {
    "ddp": {"mode": "ddp"},
    "fsdp": {"mode": "fsdp"},
    "fsdp without reshard": {"mode": "fsdp", "reshard": False},
    "fsdp with checkpointing": {"mode": "fsdp", "checkpointing": True},
    "hsdp": {"mode": "fsdp", "shard": 1},
}
COMPILED: dict[str, dict[str, Any]] = {
    "none, blocks": {"mode": "none", "compile": "blocks"},
    "none, model": {"mode": "none", "compile": "model"},
    "ddp, blocks": {"mode": "ddp", "compile": "blocks"},
    "fsdp, blocks": {"mode": "fsdp", "compile": "blocks", "checkpointing": True},
    "fsdp, model": {"mode": "fsdp", "compile": "model"},
}


def model_for(family: str) -> Any:
    return randomized(model_of(family)).double().train()


def train(model: Any, rows: slice, steps: int) -> float:
    """Take steps of SGD, and return the last loss."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    bare = bare_model(model)
    loss = zoo.loss("coca", pad_id=0) if hasattr(bare, "text_decoder") else zoo.loss("contrastive")
    value = torch.zeros(())
    for step in range(steps):
        inputs = {"image": pictures(bare, BATCH, seed=step).double(), "text": words(bare, BATCH, seed=step)}
        value = contrastive_step(model, loss, {name: rowed[rows] for name, rowed in inputs.items()}).loss
        optimizer.step()
        optimizer.zero_grad()
    return value.item()


def whole(model: Any) -> dict[str, Tensor]:
    return {
        name: value.full_tensor() if hasattr(value, "full_tensor") else value.clone()  # type: ignore[attr-defined]
        for name, value in own_state_dict(bare_model(model)).items()
    }


def run(world: World, family: str, settings: dict[str, Any], steps: int) -> dict[str, Any]:
    """Train with all processes of a world, and return loss and weights."""
    model = model_for(family)
    with torch.no_grad():
        model.logit_scale += world.rank  # the weights of the first process count
    parallel = Parallel.model_validate(settings)
    wrapped = wrap(model, parallel, world, choose_mode(model, parallel, world)[0])
    part = BATCH // world.size
    loss = train(wrapped, slice(world.rank * part, (world.rank + 1) * part), steps)
    features = bare_model(wrapped).encode_text(words(model, 2))  # gathers weights outside of forward
    return {"loss": loss, "state": whole(wrapped), "features": features.detach()}


def worker(rank: int, folder: str, runs: dict[str, dict[str, Any]], steps: dict[str, int]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD)
    try:
        results = {
            (name, family): run(World(rank, WORLD), family, settings, count)
            for name, settings in runs.items()
            for family, count in steps.items()
            if SHARDS_ON_CPU or settings["mode"] != "fsdp"
        }
        torch.save(results, Path(folder) / f"{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


def spawn(folder: Path, runs: dict[str, dict[str, Any]], steps: dict[str, int]) -> list[dict[Any, Any]]:
    mp.spawn(worker, (str(folder), runs, steps), nprocs=WORLD)  # pyright: ignore[reportPrivateImportUsage]
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    return spawn(tmp_path_factory.mktemp("processes"), RUNS, STEPS)


@pytest.mark.parametrize("family", STEPS)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[needs_shards] * (s["mode"] == "fsdp")) for n, s in RUNS.items()]
)
def test_ten_steps_of_two_processes_are_those_of_one(results: list[dict[Any, Any]], name: str, family: str) -> None:
    model = model_for(family)
    loss = train(model, slice(None), STEPS[family])
    features = model.encode_text(words(model, 2)).detach()
    for of_rank in results:
        result = of_rank[name, family]
        assert result["loss"] == pytest.approx(loss, abs=1e-10)
        torch.testing.assert_close(result["state"], own_state_dict(model), rtol=0, atol=1e-10)
        torch.testing.assert_close(result["features"], features, rtol=0, atol=1e-10)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the compiler's own
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_parts_take_the_same_steps(tmp_path: Path, name: str) -> None:
    settings = COMPILED[name]
    model = model_for("ViT CLIP")
    train(model, slice(None), 3)
    if settings["mode"] == "none":
        results = [{(name, "ViT CLIP"): run(World(), "ViT CLIP", settings, 3)}]
    else:
        results = spawn(tmp_path, {name: settings}, {"ViT CLIP": 3})
    for of_rank in results:
        torch.testing.assert_close(of_rank[name, "ViT CLIP"]["state"], own_state_dict(model), rtol=0, atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_blocks_to_shard_and_none_lies_in_another(family: str) -> None:
    blocks = list(fsdp_blocks(model_of(family)))
    assert len(blocks) >= 2
    inside = [module for block in blocks for module in block.modules()]
    assert len(inside) == len(set(inside))
