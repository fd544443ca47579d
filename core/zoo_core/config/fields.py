"""Types of config fields that name commits, digests and files."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field

from zoo_core.config.messages import wrong
from zoo_core.errors import describe

__all__ = ["Commit", "FileName", "Sha256"]

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


def _beside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or set(name) & set("\\\0:"):
        raise wrong(f"names a file outside of the folder: {describe(name)}")
    return name


FileName = Annotated[str, AfterValidator(_beside)]
"""Path of a file below the folder of a model, with forward slashes."""
