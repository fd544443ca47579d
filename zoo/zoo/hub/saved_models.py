"""Models of the Hugging Face Hub: `hf-hub:organisation/name[@revision]`.

`zoo.json` comes first. It tells every other file and its digest, so its pin (see `zoo_core.hub.lockfile`) holds the
whole model. A repository that has none may be one of another library (`zoo.hub.foreign_models`).
"""

from __future__ import annotations

from pathlib import Path

from zoo.hub.address import parse_address
from zoo.hub.foreign_models import cached_repository, fetch_repository
from zoo.saved.manifest import ORIGIN, read_origin
from zoo_core.hub.files import NoSuchFileError, NotCachedError, hub_file
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
        cached = cached_repository(repo, revision)
        if cached is None:
            raise
        return cached
    folder = origin_file.path.parent
    for name, file in read_origin(folder).files.items():
        # of the same commit as zoo.json, whatever the branch is now
        hub_file(repo, name, revision=origin_file.commit, sha256=file.sha256, local_files_only=local_files_only)
    return folder
