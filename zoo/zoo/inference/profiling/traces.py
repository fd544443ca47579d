"""Profiler traces that TensorBoard's PyTorch plugin reads whole.

Two things get lost between torch's traces and the plugin (torch-tb-profiler 0.4.3). Spans of `record_function`, those
of the data loader among them, have the category `user_annotation`, which the plugin drops unless it is a step. So the
time spent loading data is always 0. No operator carries its `Call stack` any more: the frames are events of their own.
`mend_trace` puts both where the plugin reads them.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from zoo_core.errors import InputError, SaveError, describe

__all__ = ["mend_trace", "tensorboard_trace_handler", "write_trace"]

Event = dict[str, Any]

_SPAN = (("name", str), ("ts", int | float), ("dur", int | float), ("pid", int | str), ("tid", int | str))
_NEEDED = {"cpu_op": _SPAN, "python_function": _SPAN, "user_annotation": _SPAN}
"""What is read of an event, by its category."""


def tensorboard_trace_handler(folder: str | Path, worker_name: str | None = None) -> Callable[[profile], None]:
    """Return an `on_trace_ready` for `torch.profiler.profile` that saves each trace, mended, into `folder`.

    A file is called `<worker>.<time in ns>.pt.trace.json.gz` and appears whole or not at all. Call stacks
    need `with_stack=True`. torch exports a trace once: no second handler can export the same one.

    Args:
        folder: TensorBoard's log directory for this run; created at once, so that a bad one is known early.
        worker_name: tells the processes of one run apart; `<host>_<process id>` unless given.

    Raises:
        InputError: `worker_name` is not a file name.
        SaveError: the folder cannot be created, or (from the handler) the trace cannot be written.
    """
    folder, worker = Path(folder), _worker(worker_name)
    _create(folder)

    def save_trace(profiler: profile) -> None:
        _save(profiler, folder, worker)

    return save_trace


def write_trace(
    spans: Mapping[str, Callable[[], object]],
    folder: str | Path,
    *,
    steps: int = 5,
    worker_name: str | None = None,
) -> Path:
    """Run every span `steps` times under torch's profiler and return the trace written into `folder`.

    One step runs each callable once, in the mapping's order, in a `record_function` span of that name. One
    step more runs first, unrecorded. Recorded are operators with their input shapes and Python stacks,
    memory, and CUDA kernels where there is CUDA.

    Args:
        spans: what to run, by the name that it bears in the trace, such as `"image tower"`.
        folder: created where it is missing; TensorBoard's log directory.
        steps: how many steps are recorded; 1 or more.
        worker_name: the file's first part; `<host>_<process id>` unless given.

    Raises:
        InputError: `steps` is below 1, or `worker_name` is not a file name.
        SaveError: the folder or the trace cannot be written.
    """
    if steps < 1:
        raise InputError(f"steps: found {steps}, a trace records at least 1 step")
    folder, worker = Path(folder), _worker(worker_name)
    _create(folder)
    with profile(
        activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])],
        # torch leaves the result of `schedule` untyped
        schedule=torch.profiler.schedule(wait=0, warmup=1, active=steps, repeat=1),  # pyright: ignore
        record_shapes=True,
        profile_memory=True,
        with_stack=True,
    ) as profiler:
        for _ in range(1 + steps):
            for name, run in spans.items():
                with record_function(name):
                    run()
            profiler.step()
    return _save(profiler, folder, worker)


def mend_trace(trace: dict[str, Any]) -> None:
    """Rewrite a Chrome trace of torch's profiler, in place, so that TensorBoard's plugin shows all of it.

    Annotations become operators, except the steps, which the plugin knows; operators get a `Call stack`, the
    Python functions that they ran in, innermost first, joined by `;`.

    Raises:
        InputError: it is no such trace; the event is named.
    """
    events = _checked(trace)
    for event in events:
        if event.get("cat") == "user_annotation" and not event["name"].startswith("ProfilerStep#"):
            event["cat"] = "cpu_op"
    threads: defaultdict[tuple[Any, Any], list[Event]] = defaultdict(list)
    for event in events:
        if event.get("ph") == "X" and event.get("cat") in ("cpu_op", "python_function"):
            threads[event["pid"], event["tid"]].append(event)
    for thread in threads.values():
        _add_call_stacks(thread)


def _checked(trace: object) -> list[Event]:
    """Return the events of a trace, once each holds what is read of it."""
    events: object = cast("Event", trace).get("traceEvents") if isinstance(trace, dict) else None
    if not isinstance(events, list):
        raise InputError("a trace is a mapping with a list of 'traceEvents', as torch's profiler writes it")
    for index, event in enumerate(cast("list[object]", events)):
        if not isinstance(event, dict):
            raise InputError(f"traceEvents[{index}]: expected a mapping, found {describe(event)}")
        fields = cast("Event", event)
        needed = _NEEDED.get(str(fields.get("cat")), ()) if fields.get("ph") == "X" else ()
        for key, kind in needed:
            value = fields.get(key)
            if not isinstance(value, kind) or (isinstance(value, float) and not math.isfinite(value)):
                raise InputError(f"traceEvents[{index}].{key}: cannot be {describe(value)}")
        if needed and not isinstance(fields.get("args", {}), dict):
            raise InputError(f"traceEvents[{index}].args: expected a mapping, found {describe(fields['args'])}")
    return cast("list[Event]", events)


def _add_call_stacks(thread: Iterable[Event]) -> None:
    """Give every operator of one thread the names of the Python functions around it."""
    open_frames: list[tuple[int, str]] = []
    for event in sorted(thread, key=_opening_order):
        start, end = _nanoseconds(event)
        while open_frames and open_frames[-1][0] <= start:
            open_frames.pop()
        if event["cat"] == "python_function":
            open_frames.append((end, event["name"]))
        elif open_frames:
            stack = ";".join(name for _, name in reversed(open_frames))
            event.setdefault("args", {})["Call stack"] = stack


def _opening_order(event: Event) -> tuple[int, int, bool]:
    """Sort by start, and of two that start together the outer one first: the longer, then the function."""
    start, end = _nanoseconds(event)
    return start, -end, event["cat"] != "python_function"


def _nanoseconds(event: Event) -> tuple[int, int]:
    """Return start and end as integers: in float microseconds `ts + dur` can lie beyond the next `ts`."""
    start = round(event["ts"] * 1000)
    return start, start + round(event["dur"] * 1000)


def _worker(name: str | None) -> str:
    if name is None:
        return f"{socket.gethostname()}_{os.getpid()}"
    if not name or name != Path(name).name:
        raise InputError(f"worker_name: found {name!r}, it is the first part of a file's name and holds no '/'")
    return name


def _create(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _save(profiler: profile, folder: Path, worker: str) -> Path:
    """Export, mend and pack in a hidden folder beside the target, which is renamed into place at the end."""
    path = folder / f"{worker}.{time.time_ns()}.pt.trace.json.gz"
    _create(folder)
    try:
        with TemporaryDirectory(dir=folder, prefix=".trace-") as scratch:
            exported, packed = Path(scratch, "exported.json"), Path(scratch, "packed")
            profiler.export_chrome_trace(str(exported))
            trace = json.loads(exported.read_bytes())  # of this process and this moment, and of any size
            mend_trace(trace)
            trace["traceName"] = path.name
            packed.write_bytes(gzip.compress(json.dumps(trace).encode(), compresslevel=6))
            packed.replace(path)
    except (OSError, ValueError) as error:  # torch reports no full disk: its JSON just ends
        raise _unwritable(folder, error) from error
    return path


def _unwritable(folder: Path, error: Exception) -> SaveError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return SaveError(f"cannot write a trace into '{folder}': {reason}; give a folder that can be written to")
