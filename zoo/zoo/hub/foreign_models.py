"""Repositories of other libraries on the Hub, as folders of the local cache: what states the model, and its weights.

What you would not guess: the list of files that were taken is pinned when all of them are there
(`zoo_core.hub.lockfile`). So the model is the same ever after without asking anybody, and what an interrupted download
or another program left in the cache is not mistaken for a whole repository: a tokenizer that lacks a file may still
load, as another one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from zoo.checkpoints.containers import INDEX, weights_among
from zoo.checkpoints.containers.shards import read_index
from zoo.checkpoints.open import read_foreign_config
from zoo.saved.unread_folders import why_unread
from zoo_core.errors import DownloadError
from zoo_core.hub.lockfile import Listing, pinned_listing
from zoo_core.hub.repository import fetch_files, fetch_listing
from zoo_core.hub.request import HubRequest

__all__ = ["cached_repository", "fetch_repository"]

_STATING = (".json", ".txt", ".model", ".tiktoken")
"""How files end that state architecture, preprocessing and tokenizer."""
_INNER = re.compile(r"([\w.-]+)/config\.json")
"""The config of a model in a folder of its own, whose name a shell takes as it is."""

_log = logging.getLogger(__name__)


def fetch_repository(repo: str, revision: str | None = None, *, local_files_only: bool = False) -> Path:
    """Return the folder of the local cache that holds the model of a repository, downloaded if it has to be.

    Args:
        repo: `organisation/name`.
        revision: branch, tag or commit; the main branch where None.
        local_files_only: never ask the Hub.

    Raises:
        DownloadError: a file cannot be had, or has other bytes than its pin tells; or the repository states no
            architecture that an installed plugin reads, or holds no weights.
        CheckpointError: its index of weights is damaged.
        ConfigError: it states what cannot be built.
    """
    request = HubRequest(repo, revision, local_files_only)
    listing = pinned_listing(repo, revision)
    if listing is not None:
        return fetch_listing(request, listing)
    commit, everything = request.list_files(revision)
    there = [name for name in everything if "/" not in name]
    stating = [name for name in there if name.endswith(_STATING) and not name.endswith(INDEX)]
    folder = fetch_files(request, stating, commit) if stating else None
    if folder is None or read_foreign_config(folder) is None:
        raise _error(
            request,
            "the repository holds no zoo.json and no config of a library whose models zoo reads"
            f"{_other_way(repo, everything, folder)}",
        )
    weights = _weights(request, there, commit)
    return fetch_listing(request, Listing(commit=commit, files=(*stating, *weights)))


def cached_repository(repo: str, revision: str | None = None) -> Path | None:
    """Return the folder of a repository that another program put into the cache; None where it holds no model.

    Whether all of the repository is there cannot be told, which is said in the log.
    """
    folder = HubRequest(repo, revision).cached_snapshot(revision)
    if folder is None or read_foreign_config(folder) is None or not weights_among(_names(folder)):
        return None
    _log.warning("%s is taken as the local cache holds it; whether files are missing cannot be told offline", repo)
    return folder


def _weights(request: HubRequest, there: Sequence[str], commit: str) -> list[str]:
    """Return the names of the files of weights, an index before its shards."""
    found = weights_among(there)
    if len(found) != 1:
        what = f"several files of weights: {', '.join(found[:6])}" if found else "no weights that zoo reads"
        message = f"the repository holds {what}; give one to an architecture: zoo.build(name, pretrained=...)"
        raise _error(request, message)
    if not found[0].endswith(INDEX):
        return found
    shards = sorted(set(read_index(fetch_files(request, found, commit) / found[0]).values()))
    lost = [name for name in shards if name not in there]
    if lost:
        raise _error(request, f"{found[0]} names {lost[0]!r}, which the repository does not hold")
    return [*found, *shards]


def _error(request: HubRequest, message: str) -> DownloadError:
    at = f"@{request.revision}" if request.revision else ""
    return DownloadError(f"hf-hub:{request.repo}{at}: {message}", repo=request.repo, revision=request.revision)


def _other_way(repo: str, there: Sequence[str], folder: Path | None) -> str:
    """Return what a repository without a model of its own holds, and how that is built."""
    inner = next(filter(None, map(_INNER.fullmatch, there)), None)
    if inner:
        fetched = f"`hf download {repo} --include '{inner[1]}/*' --local-dir FOLDER`"
        return f"; a model may be in its folder {inner[1]}: {fetched}, then zoo.build('FOLDER/{inner[1]}')"
    told = why_unread(folder) if folder is not None else ""
    return f"{told}; give its weights to an architecture: zoo.build(name, pretrained='file.safetensors')"


def _names(folder: Path) -> list[str]:
    return [one.name for one in folder.iterdir()]
