"""Models of the Hugging Face Hub: `hf-hub:organisation/name[@revision]`.

`zoo.json` comes first. It tells every other file and its digest, so its pin (see `zoo_core.hub.lockfile`) holds the
whole model. A repository that has none may be one of another library (`zoo.hub.foreign_models`).
"""

from __future__ import annotations

from pathlib import Path

from zoo.hub.address import parse_address
from zoo.hub.foreign_models import cached_repository, fetch_repository
from zoo.saved.manifest import ORIGIN, read_origin
from zoo_core.hub.files import HubFile, NoSuchFileError, NotCachedError, hub_file
from zoo_core.hub.lockfile import pinned_listing

__all__ = ["fetch_folder"]


def fetch_folder(source: str, *, local_files_only: bool = False) -> Path:
    """Return the folder of the local cache that holds the model of a repository, downloaded if it has to be.

    Args:
        source: `hf-hub:organisation/name[@revision]`.
        local_files_only: never ask the Hub.

    Raises:
        InputError: the address is malformed.
        DownloadError: a file cannot be had, or has other bytes than `zoo.json` or its pin tells; or the repository
            holds neither a saved model nor one of another library.
        CheckpointError: `zoo.json` is damaged.
        ConfigError: the repository of another library states what cannot be built.
    """
    repo, revision = parse_address(source)
    if pinned_listing(repo, revision) is not None:
        return fetch_repository(repo, revision, local_files_only=local_files_only)
    try:
        origin_file = hub_file(repo, ORIGIN, revision=revision, local_files_only=local_files_only)
    except NoSuchFileError:
        return fetch_repository(repo, revision, local_files_only=local_files_only)
    except NotCachedError:
        found = cached_repository(repo, revision)
        if found is None:
            raise
        return found
    folder = origin_file.path.parent
    for name, told in read_origin(folder).files.items():
        _fetch(origin_file, name, told.sha256, local_files_only)
    return folder


def _fetch(origin: HubFile, name: str, sha256: str, local_files_only: bool) -> None:
    """Bring a file of the same commit as `zoo.json` into the cache."""
    hub_file(origin.repo, name, revision=origin.commit, sha256=sha256, local_files_only=local_files_only)
