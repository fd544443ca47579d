"""The record of a checkpoint, `COMPLETE.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from zoo_core.config import Config
from zoo_core.config.fields import Sha256
from zoo_core.documents import Bounds
from zoo_core.documents.json_reader import read_json
from zoo_core.errors import CheckpointError, ConfigError
from zoo_core.files.hashing import sha256_of

__all__ = ["RECORD", "CheckpointRecord", "damage_of", "read_record"]

RECORD = "COMPLETE.json"
BOUNDS = Bounds(bytes=256 << 20, values=20_000_000)
"""An optimizer may keep a few numbers for each parameter."""


class FileFacts(Config):
    """Size and digest of a file."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256


class CheckpointRecord(Config):
    """What `COMPLETE.json` holds."""

    step: Annotated[int, Field(ge=0)]
    """Steps that are done."""
    world: Annotated[int, Field(ge=1)]
    """Number of processes that wrote it."""
    numbers: dict[str, Any]
    """What the optimizer keeps beside tensors."""
    facts: dict[str, Any]
    """Digests of recipe and data, versions, and the state of what else there is."""
    score: float | None = None
    """Value of the metric by which the best checkpoint is kept."""
    files: dict[str, FileFacts]


def read_record(folder: Path) -> CheckpointRecord:
    """Return the record of a checkpoint.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        raise CheckpointError(f"{folder} is no whole checkpoint: it has no {RECORD}")
    try:
        return CheckpointRecord.from_document(read_json(path, BOUNDS))
    except ConfigError as error:
        raise CheckpointError(f"{path} is damaged: {error.problems[0]}") from error


def damage_of(folder: Path, *, digests: bool = True) -> str | None:
    """Return what is wrong with a checkpoint; None where every file is as it was written, or at least as long."""
    try:
        files = read_record(folder).files
    except CheckpointError as error:
        return str(error)
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        return f"{len(missing)} of {len(files)} files are missing, such as {missing[0]}"
    for name, facts in files.items():
        path = folder / name
        if path.stat().st_size != facts.bytes:
            return f"{name} has {path.stat().st_size:,} bytes, and had {facts.bytes:,} when it was written"
        if digests and sha256_of(path) != facts.sha256:
            return f"{name} has changed since it was written"
    return None
