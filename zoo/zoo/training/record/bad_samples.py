"""The list of bad samples that a run met, `bad-samples-RANK.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoo_core.errors import SaveError

if TYPE_CHECKING:
    from zoo.training.data.batch import BadSample

__all__ = ["list_bad_samples"]


def list_bad_samples(folder: Path, rank: int, step: int, samples: Sequence[BadSample]) -> None:
    """Append bad samples to the list of a process, a JSON object a line: the step, where it stands, and why.

    Raises:
        SaveError: the list cannot be written.
    """
    lines = [{"step": step, "location": sample.location, "reason": sample.reason} for sample in samples]
    path = folder / f"bad-samples-{rank}.jsonl"
    try:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(line)}\n" for line in lines)
    except OSError as error:
        raise SaveError(f"{path} cannot be written: {error.strerror or error}") from error
