"""What a name stands for: a folder of this machine, a repository of the Hub that holds one, or else an architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.folders import is_folder
from zoo.hub_folders import PREFIX, fetch_folder

__all__ = ["local_folder"]


def local_folder(source: Any, *, local_files_only: bool = False) -> Path | None:
    """Return the folder of the saved model that a source stands for; None where it is none.

    Args:
        source: what `zoo.build` takes; `hf-hub:organisation/name[@revision]` is downloaded where it has to be.
        local_files_only: never ask the Hub, as with `HF_HUB_OFFLINE=1`.

    Raises:
        DownloadError: the repository, or a file of it, cannot be had, or has other bytes than it should.
        InputError: the address is malformed.
    """
    if isinstance(source, str) and source.startswith(PREFIX):
        return fetch_folder(source, local_files_only=local_files_only)
    return Path(source) if is_folder(source) else None
