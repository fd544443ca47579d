"""Loader of batches: torch's, over steps instead of samples.

Workers are told the number of a step and find its rows by themselves, so all that a loader has to know to go on is the
next step.
"""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch.utils.data import DataLoader

from zoo.training.data.batch import Batch
from zoo_core.errors import DataError, TrainingError, reason

if TYPE_CHECKING:
    from collections.abc import Generator

    from zoo.training.data.open import TrainingData

__all__ = ["Loader", "begin_worker", "quiet_workers", "worker_deaths", "workers_for"]

MOST_WORKERS = 16
"""Workers that `auto` takes at most: more seldom help, and each holds batches in memory."""


class Loader:
    """Iterates over the batches of one process, from one step to another.

    Args:
        data: what is read.
        rank: which process this is.
        count: how many there are.
        start: first step, from 0.
        steps: the step before which it ends.
        workers: processes that read; with 0 this one does. `auto` takes as many as there are cores to spare.
        prefetch: batches that each of them reads ahead.
        device: where batches are moved to.

    Raises:
        DataError: processes cannot share a batch evenly.
    """

    def __init__(
        self,
        data: TrainingData,
        *,
        steps: int,
        rank: int = 0,
        count: int = 1,
        start: int = 0,
        workers: int | Literal["auto"] = "auto",
        prefetch: int = 2,
        device: torch.device | str = "cpu",
    ) -> None:
        if data.batch % count:
            below = data.batch // count * count
            nearest = f"{below} or {below + count}" if below else f"{count}"
            raise DataError(f"a batch of {data.batch} cannot be shared by {count} processes; nearest: {nearest}")
        self.data, self.rank, self.count, self.start, self.steps = data, rank, count, start, steps
        self.device = torch.device(device)
        self.workers = workers_for(self.device) if workers == "auto" else workers
        self.prefetch = prefetch

    def __len__(self) -> int:
        return max(0, self.steps - self.start)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches, on the device.

        Raises:
            DataError: samples cannot be read, and none can be found in their place.
            TrainingError: a worker died.
        """
        with quiet_workers():
            batches = iter(self._loader())
        try:
            for step in range(self.start, self.steps):
                began = time.perf_counter()
                with worker_deaths(f"before step {step}"):
                    batch = next(batches)
                if isinstance(batch, BaseException):
                    raise batch
                batch = batch if self.device.type == "cpu" else batch.to(self.device)
                yield replace(batch, step=step, wait=time.perf_counter() - began)
        finally:
            del batches  # its workers end now; whoever catches an error holds this frame, and they would wait for that

    def _loader(self) -> DataLoader[Any]:
        reader = self.data.reader(rank=self.rank, count=self.count, start=self.start)
        by_step = not isinstance(reader, torch.utils.data.IterableDataset)
        return DataLoader(
            reader,
            batch_size=1 if by_step else None,
            batch_sampler=cast("Any", range(self.start, self.steps)) if by_step else None,
            collate_fn=_unchanged,
            num_workers=self.workers,
            prefetch_factor=self.prefetch if self.workers else None,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=begin_worker,
            generator=torch.Generator().manual_seed(0),  # else it draws from the global one, which is the model's
        )


def workers_for(device: torch.device) -> int:
    """Return how many workers a process has cores for, beside what computes and the other processes of the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    busy = torch.get_num_threads() if device.type == "cpu" else 1
    return max(0, min(MOST_WORKERS, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - busy))


def _unchanged(batch: Any) -> Any:
    return batch


def begin_worker(worker: int) -> None:
    """Make a process a worker: one thread for each library, and signals left to the process that trains."""
    for variable, value in (("RAYON_NUM_THREADS", "1"), ("TOKENIZERS_PARALLELISM", "false"), ("OMP_NUM_THREADS", "1")):
        os.environ[variable] = value
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # a scheduler tells all processes to end, and the one that trains still needs batches until it has saved
    signal.signal(signal.SIGTERM, _end_at_the_next)


def _end_at_the_next(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)


@contextmanager
def quiet_workers() -> Generator[None]:
    """Silence advice on the number of workers, and on forking beside threads: workers use none of theirs."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
        yield


@contextmanager
def worker_deaths(when: str) -> Generator[None]:
    """Turn the error about a dead worker into one that says what to do.

    torch raises it from the handler of a signal, wherever the process is just then: a training loop stands within this.

    Raises:
        TrainingError: a worker died.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise TrainingError(
            f"a worker that reads data died {when} ({reason(error, 120)}); if memory ran out, set fewer "
            "data.workers or a smaller data.prefetch; `zoo data check` reads every sample"
        ) from error
