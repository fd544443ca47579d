"""How processes share a model follows memory where the recipe leaves it open, and comes with a reason."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch.distributed as dist
from torch import nn

from zoo.training.parallel import wrap
from zoo.training.parallel.world import World, start_world
from zoo.training.parallel.wrap import choose_mode
from zoo.training.recipe.sections import Parallel
from zoo_core.errors import ConfigError, InputError

MODEL = nn.Linear(1000, 1000, bias=False)  # 4 MB, and 24 MB with gradient, bucket, two moments and an average
ONE, FOUR = World(), World(size=4)


@pytest.fixture
def group() -> Iterator[None]:
    """Have a process group of one."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # pyright: ignore[reportPrivateImportUsage]
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize(
    ("settings", "world", "memory", "mode", "why"),
    [
        ({}, ONE, 2**30, "none", "there is one process"),
        ({}, FOUR, 41_000_000, "ddp", "each process has room for 0.0 GiB of weights and what belongs to them"),
        ({}, FOUR, 39_000_000, "fsdp", "no process has room for 0.0 GiB of weights and what belongs to them"),
        ({"shard": 2}, FOUR, 2**30, "fsdp", "the recipe states parallel.shard"),
        ({"mode": "fsdp"}, ONE, 2**30, "fsdp", "the recipe says so"),
        ({"mode": "ddp"}, FOUR, 1, "ddp", "the recipe says so"),
    ],
)
def test_a_mode_comes_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, settings: Any, world: World, memory: int, mode: str, why: str
) -> None:
    monkeypatch.setattr(wrap, "_memory_of", lambda device: memory)
    chosen, reason = choose_mode(MODEL, Parallel.model_validate(settings), world)
    assert chosen == mode
    assert reason.startswith(why)


def test_frozen_weights_need_room_for_themselves_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = nn.Linear(1000, 1000, bias=False).requires_grad_(False)
    for memory, mode in ((7_000_000, "ddp"), (6_000_000, "fsdp")):
        monkeypatch.setattr(wrap, "_memory_of", lambda device, memory=memory: memory)
        assert choose_mode(frozen, Parallel(), FOUR)[0] == mode


@pytest.mark.parametrize(
    ("settings", "world", "message"),
    [
        ({"mode": "none"}, FOUR, "parallel.mode: is 'none', but there are 4 processes; use auto, ddp or fsdp"),
        (
            {"mode": "fsdp"},
            ONE,
            "parallel.mode: is 'fsdp', but this process is alone; use auto, or start it with torchrun",
        ),
        ({"mode": "ddp"}, ONE, "parallel.mode: is 'ddp', but this process is alone"),
        ({"mode": "fsdp", "shard": 3}, FOUR, "parallel.shard: 4 processes cannot form groups of 3"),
        ({"mode": "ddp", "shard": 2}, FOUR, "parallel.shard: is for mode fsdp"),
    ],
)
def test_processes_that_cannot_share_so_are_refused(settings: Any, world: World, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        choose_mode(MODEL, Parallel.model_validate(settings), world)
    assert message in str(caught.value)


def test_a_process_alone_needs_no_group() -> None:
    with start_world("cpu") as world:
        assert world == World()
        assert world.gather({"a": 1}) == [{"a": 1}]
        assert world.any(True, False) == [True, False]
        world.barrier()
    assert not dist.is_initialized()


def test_an_incomplete_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(InputError, match="MASTER_ADDR and MASTER_PORT are not set; start with torchrun"), start_world():
        pass


JOINED = """
from zoo.training.parallel.world import start_world
with start_world("cpu", timeout=60) as world:
    values = world.gather({"rank": world.rank, "text": "x" * (world.rank + 1)})
    assert values == [{"rank": 0, "text": "x"}, {"rank": 1, "text": "xx"}], values
    assert world.any(world.is_first, False) == [True, False]
    assert world.sum(world.rank + 0.5) == [2.0]
"""


def test_processes_of_torchrun_meet_agree_and_leave(tmp_path: Any) -> None:
    (tmp_path / "script.py").write_text(JOINED)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*command, str(tmp_path / "script.py")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
