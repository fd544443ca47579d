"""Repositories of other libraries on the Hub, as folders of the local cache: what states the model, and its weights.

What you would not guess: the list of files that were taken is pinned when all of them are there
(`zoo_core.hub.lockfile`). So the model is the same ever after without asking anybody, and what an interrupted download
or another program left in the cache is not mistaken for a whole repository: a tokenizer that lacks a file may still
load, as another one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from zoo.checkpoints.containers import INDEX, weights_among
from zoo.checkpoints.containers.shards import read_index
from zoo.checkpoints.open import stated_architecture
from zoo.saved.unread_folders import why_unread
from zoo_core.errors import DownloadError, reason
from zoo_core.hub.client import ask_hub
from zoo_core.hub.files import hub_file
from zoo_core.hub.lockfile import Listing, pin_listing, pinned_listing

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
    fetch = _Fetching(repo, revision, local_files_only)
    known = pinned_listing(repo, revision)
    if known is not None:
        return fetch.files(known.files, known.commit)
    commit, everything = _listed(repo, revision)
    there = [name for name in everything if "/" not in name]
    stating = [name for name in there if name.endswith(_STATING) and not name.endswith(INDEX)]
    folder = fetch.files(stating, commit) if stating else None
    if folder is None or stated_architecture(folder) is None:
        raise fetch.error(
            "the repository holds no zoo.json and no config of a library whose models zoo reads"
            f"{_other_way(repo, everything, folder)}"
        )
    weights = fetch.weights(there, commit)
    fetch.files(weights, commit)
    pin_listing(repo, Listing(commit=commit, files=(*stating, *weights)), revision)
    return folder


def cached_repository(repo: str, revision: str | None = None) -> Path | None:
    """Return the folder of a repository that another program put into the cache; None where it holds no model.

    Whether all of the repository is there cannot be told, which is said in the log.
    """
    from huggingface_hub import errors, snapshot_download  # pyright: ignore[reportUnknownVariableType]

    try:
        folder = Path(snapshot_download(repo, revision=revision, local_files_only=True))
    except errors.LocalEntryNotFoundError:
        return None
    if stated_architecture(folder) is None or not weights_among(_names(folder)):
        return None
    _log.warning("%s is taken as the local cache holds it; whether files are missing cannot be told offline", repo)
    return folder


class _Fetching:
    """Files of one commit of a repository."""

    def __init__(self, repo: str, revision: str | None, local_files_only: bool) -> None:
        self._repo, self._revision, self._local = repo, revision, local_files_only

    def files(self, names: Iterable[str], commit: str) -> Path:
        """Bring files into the cache, and return their folder."""
        folders = {self._file(name, commit).parent for name in names}
        if len(folders) > 1:
            raise self.error(
                f"its files come from several commits, as its history was rewritten; remove {folders.pop().parent} to "
                "have all of them anew"
            )
        return folders.pop()

    def weights(self, there: Sequence[str], commit: str) -> list[str]:
        """Return the names of the files of weights, an index before its shards."""
        found = weights_among(there)
        if len(found) != 1:
            what = f"several files of weights: {', '.join(found[:6])}" if found else "no weights that zoo reads"
            raise self.error(
                f"the repository holds {what}; give one to an architecture: zoo.build(name, pretrained=...)"
            )
        if not found[0].endswith(INDEX):
            return found
        shards = sorted(set(read_index(self._file(found[0], commit)).values()))
        lost = [name for name in shards if name not in there]
        if lost:
            raise self.error(f"{found[0]} names {lost[0]!r}, which the repository does not hold")
        return [*found, *shards]

    def error(self, message: str) -> DownloadError:
        at = f"@{self._revision}" if self._revision else ""
        return DownloadError(f"hf-hub:{self._repo}{at}: {message}", repo=self._repo, revision=self._revision)

    def _file(self, name: str, commit: str) -> Path:
        return hub_file(self._repo, name, revision=self._revision, commit=commit, local_files_only=self._local).path


def _listed(repo: str, revision: str | None) -> tuple[str, list[str]]:
    """Return the commit of a revision, and the files of the repository."""
    from huggingface_hub import HfApi

    try:
        info = ask_hub(partial(HfApi().model_info, repo, revision=revision), repo)
        names = sorted(one.rfilename for one in info.siblings or ())
    except Exception as error:  # whatever its HTTP client raises
        raise DownloadError(
            f"{repo}: its files cannot be listed ({reason(error)}); try again",
            repo=repo,
            revision=revision,
        ) from None
    if info.sha is None:
        raise DownloadError(f"{repo}: the Hub does not tell its commit; try again", repo=repo, revision=revision)
    return info.sha, names


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
