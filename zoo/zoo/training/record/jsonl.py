"""The record of a run, `metrics.jsonl`: what happened, a JSON object a line.

Each line is with the system when `write` returns, so that a killed process loses none. A run that goes on from a
checkpoint first drops the lines of later steps, which it will write again.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast

from zoo_core.errors import SaveError
from zoo_core.files.atomic import atomic_write

__all__ = ["METRICS", "Event", "MetricsFile", "read_metrics"]

METRICS = "metrics.jsonl"
"""Name of the record in the folder of a run."""

Event = Literal["start", "step", "evaluate", "save", "warning", "end"]


class MetricsFile:
    """Appends to the record of a run.

    A line holds `event`, `step`, `time` (seconds since 1970) and what belongs to the event, such as metrics. What is
    not finite is written as a string that `float` reads: "nan", "inf", "-inf".

    Args:
        path: the file; its folder is there.
        step: the steps that are done already. Lines of later steps, and lines that a kill cut short, are dropped.

    Raises:
        SaveError: the file cannot be written.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        try:
            _drop_after(path, step)
        except OSError as error:
            raise self._failure(error) from error

    def write(self, event: Event, step: int, fields: Mapping[str, Any]) -> None:
        """Append a line.

        Raises:
            SaveError: the file cannot be written, such as on a full disk.
        """
        line = {"event": event, "step": step, "time": round(time.time(), 3)}
        line |= {key: _finite(value) for key, value in fields.items() if key not in line}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> SaveError:
        return SaveError(f"{self.path} cannot be written: {error.strerror or error}")


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a record; one that is cut short, as that of a running process may be, is passed over."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            entry = _entry(line)
            if entry is not None:
                yield entry


def _drop_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        entries = [(line, _entry(line)) for line in file]
    lines = [line for line, entry in entries if entry is not None and entry["step"] <= step]
    if len(lines) < len(entries):
        with atomic_write(path) as (scratch,):
            scratch.write_text("".join(lines), encoding="utf-8")


def _entry(line: str) -> dict[str, Any] | None:
    """Return what a line says; None where it is no whole line of a record."""
    if not line.endswith("\n"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict) or not isinstance(cast("dict[str, Any]", entry).get("step"), int):
        return None
    return cast("dict[str, Any]", entry)


def _finite(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
