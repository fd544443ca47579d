"""What a training run leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["TrainResult"]


@dataclass(frozen=True)
class TrainResult:
    """The end of a run.

    Attributes:
        folder: the model, an ordinary saved folder with `training.json`; the folder of the run where it was stopped.
        step: steps that are done.
        metrics: the last scores and the last loss, by name.
        digest: digest of the model folder; empty where the run was stopped.
        stopped: the signal or the limit that ended the run before its last step; None where it was finished.
    """

    folder: Path
    step: int
    metrics: Mapping[str, float]
    digest: str = ""
    stopped: str | None = None
