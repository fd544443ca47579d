"""The processes of a run: those that torchrun started, or this one alone."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous  # pyright: ignore[reportUnknownVariableType]

from zoo_core.errors import InputError

__all__ = ["World", "start_world"]


@dataclass(frozen=True)
class World:
    """Which process this is, and what processes agree on.

    Attributes:
        rank: number of this process.
        size: number of processes.
        device: where this process computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes records."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier()

    def any(self, *flags: bool) -> list[bool]:
        """Return for each flag whether it is set in any process: the same in all."""
        if self.size == 1:
            return list(flags)
        values = torch.tensor([int(flag) for flag in flags])  # on the CPU, so that no GPU has to wait
        dist.all_reduce(values, dist.ReduceOp.MAX)
        return [bool(value) for value in values]

    def sum(self, *numbers: float) -> list[float]:
        """Return the sums of numbers over the processes."""
        if self.size == 1:
            return list(numbers)
        values = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(values)
        return [float(value) for value in values]

    def gather(self, value: Any, group: Any = None) -> list[Any]:
        """Return what each process has, plain data alone, in the order of ranks."""
        if self.size == 1:
            return [value]
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(sizes, torch.tensor([len(text)]), group)
        longest = int(torch.cat(sizes).max())
        texts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
        dist.all_gather(texts, torch.nn.functional.pad(text, (0, longest - len(text))), group)
        return [json.loads(row[: int(size)].numpy().tobytes()) for row, size in zip(texts, sizes, strict=True)]


@contextmanager
def start_world(device: torch.device | str | None = None, *, timeout: float = 600.0) -> Generator[World]:
    """Join the processes that torchrun started, or be a world of one, while the block runs.

    Args:
        device: where to compute; the GPU of this process where there is one, else the CPU.
        timeout: seconds after which processes that wait for one another give up.

    Raises:
        InputError: the environment of torchrun is incomplete, or there are fewer GPUs than processes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 and "RANK" not in os.environ:
        yield World(device=_device(device, 0))
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise InputError(f"WORLD_SIZE is {size}, but {' and '.join(missing)} are not set; start with torchrun")
    place = _device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if place.type == "cuda":
        torch.cuda.set_device(place)
    backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
    _join(backend, timedelta(seconds=timeout))
    try:
        yield World(dist.get_rank(), dist.get_world_size(), place)
        dist.barrier()  # else a process that ends early takes the connections of the others with it
    finally:
        dist.destroy_process_group()


def _join(backend: str, timeout: timedelta) -> None:
    """Join the other processes, with addresses of this start alone.

    torchrun keeps one store over its restarts, in which processes would meet the addresses of those that are gone.
    """
    store, rank, size = next(rendezvous("env://", timeout=timeout))
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"start-{start}", store)  # pyright: ignore[reportPrivateImportUsage]
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)


def _device(device: torch.device | str | None, local_rank: int) -> torch.device:
    if device is not None:
        return torch.device(device)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise InputError(f"process {local_rank} of this machine has no GPU of its own: there are {count}")
    return torch.device("cuda", local_rank)
