"""Watchdog of the processes of a run.

Each process keeps a file in the folder of the run that says what it is doing, and a thread that renews it and reads
those of the others. Nobody's clock is compared with that of another: a file is old when it has not changed for long.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from zoo.training.parallel.world import World
from zoo_core.errors import TrainingError, ZooError, reason

__all__ = ["PROCESSES", "Watchdog"]

PROCESSES = "processes"
"""Name of the folder of their files in the folder of a run."""
SIZE = 4096
"""Bytes of a file, so that a shorter text covers a longer one."""
REMEDY = "start the run again, and it goes on from its last checkpoint"


@dataclass(frozen=True)
class State:
    """What the file of a process says.

    Attributes:
        run: drawn anew for each start, so that files of an earlier one do not count.
        place: the machine, and what tells apart numbers of processes on it.
        beat: grows as long as the process lives.
        turn: number of things that it has begun, which grows alike in all processes.
        doing: the last of them.
        end: why the process ended: an error, or nothing where it came to its end; None while it runs.
        culprit: the other process because of which it ended.
    """

    run: str
    rank: int
    host: str
    place: str
    process: int
    beat: int = 0
    turn: int = 0
    doing: str = "start"
    end: str | None = None
    culprit: int | None = None

    @property
    def name(self) -> str:
        return f"rank {self.rank} ({self.host}, process {self.process})"


@dataclass
class Peer:
    """Another process, as this one sees it; `seen` and `begun` are times of this one's clock."""

    state: State | None = None
    seen: float = field(default_factory=time.monotonic)
    begun: float = field(default_factory=time.monotonic)

    def update(self, state: State, now: float) -> None:
        if self.state is None or state.beat != self.state.beat:
            self.seen = now
        if self.state is None or state.turn != self.state.turn:
            self.begun = now
        self.state = state


class Watchdog:
    """Ends this process when another one is gone, or has been waited for longer than the timeout.

        with Watchdog(folder, world, timeout=600) as watchdog:
            with watchdog.doing("step 120: batch"):
                ...

    An error of a collective operation in the block of `doing` becomes a `TrainingError` that names the other process
    and what it was doing. A process that a lost one keeps waiting is ended, with the same message, after `grace`.

    Args:
        folder: that of the run; all processes see it.
        world: the processes.
        timeout: seconds after which a process that another waits for counts as hanging.
        interval: seconds between two looks; by the timeout where None.
        grace: seconds that a process has to end by itself.
        leave: what ends this process at once.
    """

    def __init__(
        self,
        folder: Path,
        world: World,
        *,
        timeout: float,
        interval: float | None = None,
        grace: float = 5.0,
        leave: Callable[[int], Any] = os._exit,  # the main thread may stand in a call that never returns
    ) -> None:
        self._folder, self._world, self._timeout = folder / PROCESSES, world, timeout
        self._interval = min(max(timeout / 60, 0.1), 10.0) if interval is None else interval
        self._grace, self._leave = grace, leave
        self._peers = {rank: Peer() for rank in range(world.size) if rank != world.rank}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._begun = time.monotonic()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._file = -1
        self._state = State("", world.rank, socket.gethostname(), _place(), os.getpid())

    def __enter__(self) -> Self:
        if self._world.size > 1:
            run = self._world.gather(secrets.token_hex(8))[0]
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path(self._world.rank), os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            self._change(run=run)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._world.size > 1:
            self._change(end="" if error is None else reason(error, 200))
            self._thread.join()
            os.close(self._file)

    @contextmanager
    def doing(self, what: str) -> Generator[None]:
        """Say in a block what this process does; all processes do the same things in the same order.

        Raises:
            TrainingError: another process is gone or hangs, by which an operation of the block failed.
        """
        self._begun = time.monotonic()
        if self._world.size > 1:
            self._change(turn=self._state.turn + 1, doing=what)
        try:
            yield
        except RuntimeError as error:
            if self._world.size == 1 or isinstance(error, ZooError):
                raise
            message = self._cause(error)
            if message is None:
                raise
            raise TrainingError(message) from error

    def _cause(self, error: RuntimeError) -> str | None:
        """Return what happened to another process, by which an operation failed here; None where nothing did."""
        deadline = time.monotonic() + min(self._grace, 4 * self._interval + 1)
        while True:
            self._look()
            if (cause := self._lost() or self._hanging()) is not None:
                rank, message = cause
                self._change(culprit=rank)
                return message
            if time.monotonic() > deadline:
                break
            time.sleep(min(self._interval, 0.1))
        if not _is_of_processes(error):
            return None
        others = "; ".join(
            f"{peer.state.name} is at {peer.state.doing}" for peer in self._peers.values() if peer.state is not None
        )
        lost = f"rank {self._state.rank} lost another process at {self._state.doing} ({reason(error, 120)})"
        return f"{lost}; {others}; {REMEDY}"

    def _watch(self) -> None:
        """Renew the file of this process and look at the others, until the run is over or this process must end."""
        since: float | None = None
        while not self._over.wait(self._interval):
            with suppress(OSError):  # a file system that is away for a moment
                self._change(beat=self._state.beat + 1)
                os.fsync(self._file)  # a file system of several machines keeps it to itself before
                self._look()
            cause = self._lost() or self._hanging() or self._blamed()
            now = time.monotonic()
            since = None if cause is None else since or now
            if cause is not None and since is not None and now - since >= self._grace:
                self._change(end=cause[1], culprit=cause[0])
                print(f"error: {cause[1]}", file=sys.stderr, flush=True)
                self._leave(1)
                return

    def _look(self) -> None:
        now = time.monotonic()
        for rank, peer in self._peers.items():
            with suppress(OSError, ValueError, TypeError):  # not there yet
                state = State(**json.loads(self._path(rank).read_text(encoding="utf-8")))
                if state.run == self._state.run:
                    peer.update(state, now)

    def _lost(self) -> tuple[int, str] | None:
        """Return a process that is gone, and what is to be said of it; one that ended for another's sake comes last."""
        states = [peer.state for peer in self._peers.values() if peer.state is not None]
        failed = sorted((state for state in states if state.end), key=lambda state: state.culprit is not None)
        gone = [state for state in states if state.end is None and self._is_gone(state)]
        for state in [*(one for one in failed if one.culprit is None), *gone, *failed]:
            if state.culprit == self._state.rank:
                continue  # it waited for this one
            if state.culprit is not None and state.end:
                return state.culprit, state.end
            why = f"ended at {state.doing}: {state.end}" if state.end else f"is gone; it was at {state.doing}"
            return state.rank, f"{state.name} {why}; {self._waits()}; {REMEDY}"
        return None

    def _is_gone(self, state: State) -> bool:
        if state.place and state.place == self._state.place and not _is_alive(state.process):
            return True
        return time.monotonic() - self._peers[state.rank].seen > self._timeout

    def _hanging(self) -> tuple[int, str] | None:
        """Return the process that is behind, where this one has waited for longer than the timeout."""
        now = time.monotonic()
        behind = [peer for peer in self._peers.values() if peer.state is not None and self._is_behind(peer.state)]
        if now - self._begun < 0.9 * self._timeout or not behind:  # operations that time out began a little later
            return None
        last = min(behind, key=lambda peer: peer.state.turn if peer.state is not None else 0)
        assert last.state is not None  # for the types
        state, seconds = last.state, now - last.begun
        return state.rank, f"{state.name} has been at {state.doing} for {seconds:.0f} s; {self._waits()}; {REMEDY}"

    def _is_behind(self, state: State) -> bool:
        return state.end is None and state.turn < self._state.turn

    def _blamed(self) -> tuple[int, str] | None:
        """Return this process, where another one ended because it waited for this one."""
        for peer in self._peers.values():
            if peer.state is not None and peer.state.end and peer.state.culprit == self._state.rank:
                return self._state.rank, peer.state.end
        return None

    def _waits(self) -> str:
        return f"rank {self._state.rank} is at {self._state.doing}, and waits no longer than {self._timeout:g} s"

    def _change(self, **changes: Any) -> None:
        """Change what the file of this process says; readers pass over one that is half written."""
        with self._lock:
            self._state = replace(self._state, **changes)
            os.pwrite(self._file, json.dumps(vars(self._state)).encode().ljust(SIZE), 0)

    def _path(self, rank: int) -> Path:
        return self._folder / f"rank-{rank}.json"


def _place() -> str:
    """Return what tells this machine from others, and on it the space of numbers of processes."""
    space = ""
    with suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink())
    return f"{socket.gethostname()} {space}" if space else ""


def _is_alive(process: int) -> bool:
    """Tell whether a process of this machine runs: one that ended may stand in the table until its parent asks."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def _is_of_processes(error: RuntimeError) -> bool:
    """Tell whether an error is one of operations that processes do together; gloo has no class for its own."""
    if type(error).__name__.startswith("Dist"):
        return True
    return any(part in str(error).lower() for part in ("gloo", "nccl", "connection", "timed out"))
