"""What two processes saved, one and four load, and what these save the other way round: every tensor equal, exactly.

The model has a logit scale, which FSDP2 holds as `[1]`; the optimizer has several groups and a frozen parameter, and is
Muon for matrices beside AdamW. Tests of several processes start each number of them once, since that takes most of the
time.
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
from support.models.families import model_of, pictures, words
from support.peer import randomized
from zoo.catalog.architectures import registry
from zoo.training.checkpoints.state import TrainingState
from zoo.training.checkpoints.store import Checkpoints
from zoo.training.gradients.step import contrastive_step
from zoo.training.gradients.wrapped_model import bare_model
from zoo.training.optimization.ema import Ema
from zoo.training.optimization.optimizer import build_optimizer
from zoo.training.parallel.world import World
from zoo.training.parallel.wrap import Mode, wrap
from zoo.training.recipe.sections import Keep, Parallel
from zoo_core.nn.state_dict import own_state_dict
from zoo_optimizers.config import AdamWConfig, MuonConfig

# FSDP2 of torch 2.6 asks a CPU stream for an event, which it has not
SHARDS_ON_CPU = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 7)
needs_shards = pytest.mark.skipif(not SHARDS_ON_CPU, reason="FSDP2 runs on the CPU from torch 2.7 on")
OPTIMIZERS: dict[str, Any] = {
    "adamw": AdamWConfig(weight_decay=0.1, lr_scale={"text.*": 0.5}),
    **({"muon": MuonConfig(weight_decay=0.1)} if hasattr(torch.optim, "Muon") else {}),
}
HYBRID = "muon" if "muon" in OPTIMIZERS else "adamw"


class Trained:
    """A model with its optimizer and an average, on one process of several."""

    def __init__(self, world: World, mode: Mode, optimizer: str, seed: int, family: str = "ViT CLIP") -> None:
        torch.manual_seed(seed)
        model: Any = randomized(model_of(family)).train()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01 * seed)
        model.visual.conv1.requires_grad_(False)
        self.world = world
        self.module = wrap(model, Parallel(), world, mode)
        self.model = bare_model(self.module)
        self.optimizer = build_optimizer(OPTIMIZERS[optimizer], self.model, registry())
        self.ema = Ema(self.model, 0.9)

    def train(self, steps: int) -> None:
        for step in range(steps):
            self.optimizer.zero_grad()
            inputs = {"image": pictures(self.model, 8, seed=step), "text": words(self.model, 8, seed=step)}
            part = 8 // self.world.size
            rows = slice(self.world.rank * part, (self.world.rank + 1) * part)
            contrastive_step(self.module, zoo.loss("contrastive"), {name: all_[rows] for name, all_ in inputs.items()})
            self.optimizer.step()
            self.ema.update(step + 1)

    def state(self) -> TrainingState:
        return TrainingState(self.model, self.optimizer, self.ema.state_dict())

    def whole(self) -> dict[str, Any]:
        """Return every tensor whole, and every number."""
        tensors = {name: _whole(value) for name, value in self.state().tensors().items()}
        return {"tensors": tensors, "numbers": self.state().numbers()}


def _whole(value: Any) -> Tensor:
    return (value.full_tensor() if hasattr(value, "full_tensor") else value).detach().clone()


def checkpoints(folder: Path, world: World, **keep: Any) -> Checkpoints:
    return Checkpoints(folder, world, Keep(**keep))


def worker(rank: int, size: int, folder: str, job: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting-{size}", rank=rank, world_size=size)
    try:
        (save_in_two if job == "save" else load_in_four)(World(rank, size), Path(folder))
        dist.barrier()
    finally:
        dist.destroy_process_group()


def modes() -> list[Mode]:
    return ["ddp", "fsdp"] if SHARDS_ON_CPU else ["ddp"]


def save_in_two(world: World, folder: Path) -> None:
    for mode in modes():
        trained = Trained(world, mode, HYBRID, seed=0)
        trained.train(2)
        with torch.no_grad():  # an evaluation, after which FSDP2 has gathered weights
            trained.module(pictures(trained.model, 2), words(trained.model, 2))
        store = checkpoints(folder / mode, world, background=mode == "fsdp")
        store.save(2, trained.state(), {})
        expected = trained.whole()
        trained.train(1)  # while it is written, where that is in the background
        store.close()
        if world.is_first:
            torch.save(expected, folder / mode / "expected.pt")
    norm = Trained(world, modes()[-1], "adamw", seed=0, family="ResNet CLIP")
    norm.train(1)  # each process on its own part of the batch
    tensors = norm.state().tensors()
    torch.save(
        {name: tensor for name, tensor in tensors.items() if "running" in name}, folder / f"norms {world.rank}.pt"
    )


def load_in_four(world: World, folder: Path) -> None:
    for source in (*modes(), "one"):
        for mode in modes():
            trained = Trained(world, mode, HYBRID, seed=1)
            store = checkpoints(folder / source, world)
            latest = store.latest()
            assert latest is not None
            store.load(latest, trained.state())
            loaded = trained.whole()
            again = checkpoints(folder / f"four {source} {mode}", world)
            again.save(2, trained.state(), {})
            if world.is_first:
                torch.save(loaded, folder / f"four {source} {mode}" / "loaded.pt")


def assert_equal(loaded: dict[str, Any], expected: dict[str, Any]) -> None:
    assert loaded["numbers"] == expected["numbers"]
    assert loaded["tensors"].keys() == expected["tensors"].keys()
    for name, value in expected["tensors"].items():
        assert loaded["tensors"][name].dtype == value.dtype, name
        assert torch.equal(loaded["tensors"][name], value), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save with two processes, load with one and save again, and load and save with four."""
    folder = tmp_path_factory.mktemp("run")
    mp.spawn(worker, (2, str(folder), "save"), nprocs=2)  # pyright: ignore[reportPrivateImportUsage]
    alone = Trained(World(), "none", HYBRID, seed=1)
    store = checkpoints(folder / modes()[-1], World())
    store.load(folder / modes()[-1] / "step-00000002", alone.state())
    checkpoints(folder / "one", World()).save(2, alone.state(), {})
    torch.save(alone.whole(), folder / "one" / "expected.pt")
    mp.spawn(worker, (4, str(folder), "load"), nprocs=4)  # pyright: ignore[reportPrivateImportUsage]
    return folder


@pytest.mark.parametrize("source", ["ddp", pytest.param("fsdp", marks=needs_shards)])
def test_one_process_loads_what_two_saved(folder: Path, source: str) -> None:
    alone = Trained(World(), "none", HYBRID, seed=1)
    checkpoints(folder, World()).load(folder / source / "step-00000002", alone.state())
    assert_equal(alone.whole(), torch.load(folder / source / "expected.pt"))


@pytest.mark.parametrize("mode", ["ddp", pytest.param("fsdp", marks=needs_shards)])
@pytest.mark.parametrize("source", ["ddp", pytest.param("fsdp", marks=needs_shards), "one"])
def test_four_processes_load_what_others_saved_and_one_loads_that_again(folder: Path, source: str, mode: str) -> None:
    expected = torch.load(folder / source / "expected.pt")
    of_four = folder / f"four {source} {mode}"
    assert_equal(torch.load(of_four / "loaded.pt"), expected)
    alone = Trained(World(), "none", HYBRID, seed=2)
    checkpoints(of_four, World()).load(of_four / "step-00000002", alone.state())
    assert_equal(alone.whole(), expected)


def test_statistics_of_batch_norms_are_those_of_the_first_process_in_all(folder: Path) -> None:
    first, second = (torch.load(folder / f"norms {rank}.pt") for rank in range(2))
    assert len(first) > 0
    for name, value in first.items():
        assert torch.equal(second[name], value), name


def test_names_and_shapes_are_those_of_the_model_whatever_the_processes(folder: Path) -> None:
    own = own_state_dict(Trained(World(), "none", HYBRID, seed=0).model)
    for source in (*modes(), "one"):
        tensors = torch.load(folder / source / "expected.pt")["tensors"]
        assert tensors["model.logit_scale"].shape == (1,)
        shapes = {name.removeprefix("model."): v.shape for name, v in tensors.items() if name.startswith("model.")}
        assert shapes == {name: value.shape for name, value in own.items()}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_that_was_saved_and_loaded_goes_on_bit_for_bit(tmp_path: Path, optimizer: str) -> None:
    uninterrupted = Trained(World(), "none", optimizer, seed=0)
    uninterrupted.train(2)
    checkpoints(tmp_path, World()).save(2, uninterrupted.state(), {})
    resumed = Trained(World(), "none", optimizer, seed=1)
    checkpoints(tmp_path, World()).load(tmp_path / "step-00000002", resumed.state())
    for trained in (uninterrupted, resumed):
        trained.train(2)
    assert_equal(resumed.whole(), uninterrupted.whole())
