"""Models of other libraries on the Hub, in the local cache.

The list of the files is pinned when all of them are there (`zoo_core.hub.lockfile`). So the model stays the same
without asking anybody. What an interrupted download or another program left in the cache is not mistaken for a whole
repository: a tokenizer that lacks a file may still load, as another one.
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

_CONFIG_ENDINGS = (".json", ".txt", ".model", ".tiktoken")
"""How files end that hold the config of a model, its preprocessing or its tokenizer."""
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
    commit, all_names = request.list_files(revision)
    names = [name for name in all_names if "/" not in name]
    # configs are small and come first: they tell whether the weights are worth a download
    configs = [name for name in names if name.endswith(_CONFIG_ENDINGS) and not name.endswith(INDEX)]
    folder = fetch_files(request, configs, commit) if configs else None
    if folder is None or read_foreign_config(folder) is None:
        raise _error(
            request,
            "the repository holds no zoo.json and no config of a library whose models zoo reads"
            f"{_other_way(repo, all_names, folder)}",
        )
    weights = _weights(request, names, commit)
    return fetch_listing(request, Listing(commit=commit, files=(*configs, *weights)))


def cached_repository(repo: str, revision: str | None = None) -> Path | None:
    """Return the folder of a repository that another program put into the cache; None where it holds no model.

    Whether all of the repository is there cannot be told, which is said in the log.
    """
    folder = HubRequest(repo, revision).cached_snapshot(revision)
    if folder is None or read_foreign_config(folder) is None:
        return None
    if not weights_among([path.name for path in folder.iterdir()]):
        return None
    _log.warning("%s is taken as the local cache holds it; whether files are missing cannot be told offline", repo)
    return folder


def _weights(request: HubRequest, names: Sequence[str], commit: str) -> list[str]:
    """Return the names of the files of weights, an index before its shards."""
    weights = weights_among(names)
    if len(weights) != 1:
        what = f"several files of weights: {', '.join(weights[:6])}" if weights else "no weights that zoo reads"
        message = f"the repository holds {what}; give one to an architecture: zoo.build(name, pretrained=...)"
        raise _error(request, message)
    index = weights[0]
    if not index.endswith(INDEX):
        return weights
    shards = sorted(set(read_index(fetch_files(request, [index], commit) / index).values()))
    lost = [name for name in shards if name not in names]
    if lost:
        raise _error(request, f"{index} names {lost[0]!r}, which the repository does not hold")
    return [index, *shards]


def _error(request: HubRequest, message: str) -> DownloadError:
    at = f"@{request.revision}" if request.revision else ""
    return DownloadError(f"hf-hub:{request.repo}{at}: {message}", repo=request.repo, revision=request.revision)


def _other_way(repo: str, names: Sequence[str], folder: Path | None) -> str:
    """Return what a repository without a model of its own holds, and how that is built."""
    inner = next(filter(None, map(_INNER.fullmatch, names)), None)
    if inner:
        fetched = f"`hf download {repo} --include '{inner[1]}/*' --local-dir FOLDER`"
        return f"; a model may be in its folder {inner[1]}: {fetched}, then zoo.build('FOLDER/{inner[1]}')"
    reason = why_unread(folder) if folder is not None else ""
    return f"{reason}; give its weights to an architecture: zoo.build(name, pretrained='file.safetensors')"
