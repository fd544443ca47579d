"""Checkpoints of a run on the disk.

    checkpoints/step-00001000/   .metadata, one file for each process, and COMPLETE.json, which is written last

A checkpoint is written under another name, made durable, and then renamed. So whatever bears its name is whole, however
the run ended. Its record holds the size and the digest of each file, and what was trained.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load  # pyright: ignore[reportUnknownVariableType]
from torch.distributed.checkpoint.state_dict_saver import save  # pyright: ignore[reportUnknownVariableType]

from zoo.training.checkpoints.reader import TensorReader
from zoo.training.checkpoints.record import RECORD, CheckpointRecord, damage_of, read_record
from zoo_core.errors import CheckpointError, SaveError, reason
from zoo_core.files.hashing import sha256_of
from zoo_core.nn.state_dict import is_sharded

if TYPE_CHECKING:
    from zoo.training.checkpoints.state import TrainingState
    from zoo.training.parallel.world import World
    from zoo.training.recipe.sections import Keep

__all__ = ["Checkpoints"]

NAME = re.compile(r"step-(\d{8,})")
UNFINISHED = ".tmp"
Announce = Callable[[int, Path], None]


class Checkpoints:
    """The checkpoints of a run; all processes call each method together.

    Args:
        folder: where they are, `checkpoints` in the folder of the run.
        world: the processes.
        keep: which of them stay.
        announce: called in the first process with the step and the folder of a checkpoint that is durable.
        report: called with a line about a checkpoint that is passed over.
    """

    def __init__(
        self,
        folder: Path,
        world: World,
        keep: Keep,
        *,
        announce: Announce = lambda step, folder: None,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.folder, self._world, self._keep = folder, world, keep
        self._announce, self._report = announce, report
        self._group: Any = dist.new_group(backend="gloo") if world.size > 1 else None
        self._writer = ThreadPoolExecutor(1, "checkpoints") if keep.background else None
        self._pending: Future[None] | None = None
        self._scores: dict[int, float] = {}
        self._meshes: dict[Any, Any] = {}

    def steps(self) -> list[int]:
        """Return the steps of which there is a checkpoint by its name, in order."""
        if not self.folder.is_dir():
            return []
        return sorted(int(match[1]) for path in self.folder.iterdir() if (match := NAME.fullmatch(path.name)))

    def path(self, step: int) -> Path:
        """Return the folder of the checkpoint of a step."""
        return self.folder / f"step-{step:08}"

    def latest(self) -> Path | None:
        """Return the newest checkpoint that is whole, which the first process decides; others are reported.

        Every file is compared with its digest.
        """
        chosen: str | None = None
        if self._world.is_first:
            for path in self._unfinished():
                self._report(f"{path} is passed over: it was not completed")
            for step in reversed(self.steps()):
                damage = damage_of(self.path(step))
                if damage is None:
                    chosen = str(self.path(step))
                    break
                self._report(f"{self.path(step)} is passed over: {damage}")
        chosen = self._world.gather(chosen)[0]
        return None if chosen is None else Path(chosen)

    def save(self, step: int, state: TrainingState, facts: Mapping[str, Any], *, score: float | None = None) -> None:
        """Write the checkpoint of a step, unless there is one; those that nobody needs any more are removed.

        With `background` the tensors are copied, and the call returns before they are written.

        Args:
            step: steps that are done.
            state: what is written.
            facts: what the record says besides, ready for JSON.
            score: value of the metric by which the best one is kept.

        Raises:
            SaveError: it, or the one before it in the background, cannot be written; what stood there still does.
            ConfigError: the optimizer keeps something that cannot be written.
        """
        self.wait()
        if score is not None:
            self._scores[step] = score
        is_there = self._world.is_first and self.path(step).is_dir() and damage_of(self.path(step)) is None
        if self._world.gather(is_there)[0]:
            return
        record: dict[str, Any] = {"step": step, "world": self._world.size, "facts": dict(facts)}
        record["numbers"] = state.numbers()
        if self._scores:
            record["score"] = self._scores.get(step)
        tensors = state.tensors()
        if self._writer is None:
            self._write(step, tensors, record)
        else:
            copies = {name: self._staged(tensor) for name, tensor in tensors.items()}
            self._pending = self._writer.submit(self._write, step, copies, record)

    def wait(self) -> None:
        """Wait for what is written in the background.

        Raises:
            SaveError: it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Wait, and end the thread."""
        try:
            self.wait()
        finally:
            if self._writer is not None:
                self._writer.shutdown()

    def load(self, path: Path, state: TrainingState) -> CheckpointRecord:
        """Read a checkpoint into a model and its optimizer, whatever processes wrote it.

        Returns:
            its record.

        Raises:
            CheckpointError: it is damaged, or of another model.
        """
        record = read_record(path)
        reader = TensorReader(str(path))
        entries = cast("Mapping[str, TensorStorageMetadata]", reader.read_metadata().state_dict_metadata)
        shapes = {name: (tuple(entry.size), entry.properties.dtype) for name, entry in entries.items()}
        state.prepare(shapes, record.numbers)
        tensors: dict[str, Any] = dict(state.tensors())
        _expect_same(path, tensors, shapes)
        try:
            with _quiet():
                load(tensors, storage_reader=reader, process_group=self._group, no_dist=self._group is None)
        except CheckpointException as error:
            raise CheckpointError(f"{path} cannot be read: {_first(error)}") from error
        return record

    def _staged(self, tensor: Tensor) -> Tensor:
        """Return a copy in the memory of the machine, where training does not change it and no GPU is short of room."""
        if not is_sharded(tensor):
            return tensor.detach().to("cpu", copy=True)
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.tensor import DTensor

        assert isinstance(tensor, DTensor)  # for the types
        mesh = tensor.device_mesh
        if mesh.device_type != "cpu":
            if mesh not in self._meshes:
                self._meshes[mesh] = init_device_mesh("cpu", tuple(mesh.shape), mesh_dim_names=mesh.mesh_dim_names)
            mesh = self._meshes[mesh]
        local = tensor.to_local().detach().to("cpu", copy=True)
        shape, stride = tensor.shape, tensor.stride()
        return DTensor.from_local(local, mesh, tensor.placements, run_check=False, shape=shape, stride=stride)

    def _write(self, step: int, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        scratch = self.folder / f"{self.path(step).name}{UNFINISHED}"
        self._together(lambda: _fresh(scratch))
        writer = FileSystemWriter(str(scratch), single_file_per_rank=True, sync_files=True)
        try:
            with _quiet():
                save(dict(tensors), storage_writer=writer, process_group=self._group, no_dist=self._group is None)
        except CheckpointException as error:
            self._together(lambda: shutil.rmtree(scratch, ignore_errors=True))
            raise SaveError(f"{self.path(step)} cannot be written: {_first(error)}") from error
        self._together(lambda: self._finish(scratch, step, record))
        if self._world.is_first:
            self._announce(step, self.path(step))
            self._prune(step)

    def _finish(self, scratch: Path, step: int, record: dict[str, Any]) -> None:
        """Describe the files, make all of it durable, and give it its name."""
        files = sorted(path for path in scratch.iterdir() if path.name != RECORD)
        record["files"] = {path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in files}
        with (scratch / RECORD).open("w", encoding="utf-8") as file:
            json.dump(record, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(scratch)
        shutil.rmtree(self.path(step), ignore_errors=True)  # one that is damaged
        scratch.rename(self.path(step))
        _sync_folder(self.folder)

    def _together(self, work: Callable[[], None]) -> None:
        """Do something in the first process while the others wait, and fail in all of them if it fails."""
        failure = ""
        if self._world.is_first:
            try:
                work()
            except OSError as error:
                failure = f"{self.folder} cannot be written: {error.strerror or reason(error)}"
        if self._group is not None:
            failures: list[str] = self._world.gather(failure, self._group)
            failure = max(failures)
        if failure:
            raise SaveError(failure)

    def _prune(self, newest: int) -> None:
        """Remove checkpoints that nobody needs, but none before the newest one is known to be whole.

        One that lost a file since counts for nothing. What is left of saves that were not completed goes too.
        """
        if damage_of(self.path(newest)) is not None:
            return
        steps = [step for step in self.steps() if damage_of(self.path(step), digests=False) is None]
        kept = {*steps[-self._keep.last :], newest}
        if self._keep.best is not None:
            best = min if self._keep.best.mode == "min" else max
            scores = {step: score for step in steps if (score := self._score(step)) is not None}
            kept |= {best(scores, key=lambda step: scores[step])} if scores else set()
        for step in set(steps) - kept:
            path = self.path(step)
            with suppress(OSError):  # it stays until the next time
                path.rename(path.with_name(f"{path.name}{UNFINISHED}"))  # what bears the name of one is whole
        for path in self._unfinished():
            shutil.rmtree(path, ignore_errors=True)

    def _unfinished(self) -> list[Path]:
        """Return the folders of checkpoints that were not completed, or not removed completely."""
        return sorted(self.folder.glob(f"step-*{UNFINISHED}"))

    def _score(self, step: int) -> float | None:
        if step not in self._scores:
            try:
                score = read_record(self.path(step)).score
            except CheckpointError:
                return None
            if score is None:
                return None
            self._scores[step] = score
        return self._scores[step]


@contextmanager
def _quiet() -> Generator[None]:
    """Silence torch's note that a process alone reads and writes by itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
        yield


def _fresh(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _expect_same(path: Path, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[tuple[int, ...], Any]]) -> None:
    missing = sorted(tensors.keys() - shapes.keys())
    unexpected = sorted(name for name in shapes.keys() - tensors.keys() if not name.startswith("average."))
    other = sorted(name for name in tensors.keys() & shapes.keys() if tuple(tensors[name].shape) != shapes[name][0])
    for names, what in ((missing, "lacks"), (unexpected, "holds more than this run:"), (other, "has another shape of")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise CheckpointError(f"{path} is of another model or optimizer: it {what} '{names[0]}'{more}")


def _first(error: CheckpointException) -> str:
    """Return the first of the failures that torch collects from all processes."""
    rank, failure = next(iter(error.failures.items()))
    cause = failure[0]
    if isinstance(cause, KeyboardInterrupt | SystemExit):  # torch collects these too
        raise cause from None
    text = cause.strerror if isinstance(cause, OSError) and cause.strerror else reason(cause)
    return f"process {rank}: {text}"
