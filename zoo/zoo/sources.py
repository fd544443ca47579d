"""What a name stands for: a folder of this machine, a repository of the Hub that holds a model, or an architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.catalog import config as load_config
from zoo.folders import is_folder, open_folder
from zoo.layouts import stated_architecture
from zoo_core.config import ModelConfig

__all__ = ["PREFIX", "config_of", "holds_model", "locate", "stated"]

PREFIX = "hf-hub:"
"""How the address of a repository of the Hub begins."""


def locate(source: Any, *, local_files_only: bool = False) -> Any:
    """Return the folder that `hf-hub:organisation/name[@revision]` stands for, and any other source as it is.

    Args:
        source: what `zoo.build` takes; what an address stands for is downloaded where it has to be.
        local_files_only: never ask the Hub, as with `HF_HUB_OFFLINE=1`.

    Raises:
        DownloadError: the repository, or a file of it, cannot be had, or has other bytes than it should.
        InputError: the address is malformed.
    """
    if isinstance(source, str) and source.startswith(PREFIX):
        from zoo.hub_folders import fetch_folder

        return fetch_folder(source, local_files_only=local_files_only)
    return source


def stated(source: Any) -> Mapping[str, Any] | None:
    """Return the architecture that a folder of another library states; None for any other source."""
    return stated_architecture(source) if isinstance(source, str | Path) and Path(source).is_dir() else None


def holds_model(source: Any) -> bool:
    """Tell what brings weights of its own from what only has the name of an architecture, a folder included."""
    found = locate(source)
    return is_folder(found) or stated(found) is not None


def config_of(source: Any, overrides: Sequence[str] = (), *, local_files_only: bool = False) -> ModelConfig:
    """Return the architecture of whatever `zoo.build` takes.

    Raises:
        ZooError: as `zoo.build`, but for what only weights could show.
    """
    found = locate(source, local_files_only=local_files_only)
    if is_folder(found):
        return open_folder(Path(found), overrides)[0]
    return load_config(stated(found) or found, overrides)
