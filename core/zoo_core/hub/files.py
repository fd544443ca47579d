"""Files of the Hugging Face Hub: one at a time, in the local cache of its client, with the bytes that they should have.

What you would not guess: the client checks the size of what it downloads and not the bytes, although the Hub tells
their digest (SHA-256 of a large file, git's SHA-1 of a small one); the cache names each file by it, where the system
has links. Here every file is held to that digest, to its pin (`zoo_core.hub.lockfile`), and to the digest of its entry
where there is one. A file is read for its digest once; size and time tell whether it is still the file that was read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from zoo_core.documents import expect_file
from zoo_core.errors import ConfigError, DownloadError, reason
from zoo_core.files.hashing import sha256_of
from zoo_core.files.user_folder import user_folder
from zoo_core.hub.client import ask_hub, repository_cache
from zoo_core.hub.lockfile import Pin, lock_file, pin, pinned

__all__ = ["HubFile", "NoSuchFileError", "NotCachedError", "hub_file"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HubFile:
    """A file in the local cache, and what it is."""

    path: Path
    repo: str
    name: str
    commit: str
    sha256: str
    size: int


class NoSuchFileError(DownloadError):
    """The repository has no such file."""


class NotCachedError(DownloadError):
    """The cache does not hold the file, and the Hub was not to be asked or gave no answer."""


def hub_file(
    repo: str,
    name: str,
    *,
    revision: str | None = None,
    commit: str | None = None,
    sha256: str | None = None,
    local_files_only: bool = False,
    verify: bool = False,
    fix: str = "",
) -> HubFile:
    """Return a file of a repository, from the cache or downloaded into it.

    Args:
        repo: `organisation/name`.
        name: path of the file in the repository.
        revision: branch, tag or commit; the main branch where None. What it stands for is pinned at the first download.
        commit: which state of the revision is taken; that of the pin, or else the newest one, where None.
        sha256: digest that the file has to have, beside that of its pin.
        local_files_only: never ask the Hub, as with `HF_HUB_OFFLINE=1`.
        verify: read the file for its digest even where it was read before.
        fix: what else to do where the file is not to be had, for the error.

    Raises:
        NoSuchFileError: the repository has no such file.
        NotCachedError: it is not in the cache, and the Hub cannot be asked.
        DownloadError: there is no such repository or revision, the download failed, or the file has other bytes.
    """
    asked = _Asked(repo, name, revision, local_files_only, fix)
    settled = sha256 is not None and _is_commit(revision)  # then a pin has nothing to add
    known = None if settled else pinned(repo, name, revision)
    wanted = commit or (known.commit if known else revision)
    path = _cached(repo, wanted, name)
    if path is None:
        path = asked.get(wanted, or_else=revision)
    try:
        expect_file(path)
    except ConfigError as error:
        raise asked.error(str(error)) from None
    size, digest = path.stat().st_size, _digest(path, asked, verify=verify, alone=sha256 is None and known is None)
    found = Pin(commit=_commit_of(path), sha256=digest, size=size)
    if sha256 is not None and digest != sha256:
        raise asked.error(f"expected sha256 {sha256}, found {digest} in {path}: it is another file than is meant")
    if known is not None and (digest, size) != (known.sha256, known.size):
        raise asked.error(
            f"it is not the file that was pinned at first: sha256 {known.sha256} of {known.size} bytes then (commit "
            f"{known.commit}), {digest} of {size} bytes now (commit {found.commit}, {path}). If the cache is damaged, "
            f"remove that file and ask again; to take what the Hub has now, take its lines out of {lock_file()}"
        )
    if not settled and found != known:
        pin(repo, name, found, revision)
    return HubFile(path, repo, name, found.commit, digest, size)


@dataclass(frozen=True)
class _Asked:
    """A file that is asked for, and the errors that name it."""

    repo: str
    name: str
    revision: str | None
    local_files_only: bool
    fix: str

    def error(self, message: str, kind: Callable[..., DownloadError] = DownloadError) -> DownloadError:
        at = f" at revision '{self.revision}'" if self.revision else ""
        told = f"{self.repo}{at}: {self.name}: {message}"
        return kind(told, repo=self.repo, revision=self.revision, file=self.name)

    def get(self, revision: str | None, *, or_else: str | None) -> Path:
        """Return the path in the cache, downloaded if it has to be.

        Args:
            revision: what to ask for: that of the pin, where there is one.
            or_else: what to ask for where the Hub no longer has `revision`, as when a history was rewritten.
        """
        from huggingface_hub import errors, hf_hub_download  # pyright: ignore[reportUnknownVariableType]

        options: dict[str, Any] = {"revision": revision, "local_files_only": self.local_files_only}
        try:
            return Path(ask_hub(partial(hf_hub_download, self.repo, self.name, **options), self.repo))
        except DownloadError as error:
            raise self.error(f"{error}{_or(self.fix)}") from None
        except errors.GatedRepoError:
            raise self.error(
                "the repository is gated: ask for access at its page on the Hub and log in with `hf auth login`"
                + _or(self.fix)
            ) from None
        except errors.RepositoryNotFoundError:
            raise self.error(
                "the Hub shows no such repository; if it is gated or private, log in with `hf auth login`"
            ) from None
        except errors.RevisionNotFoundError:
            if revision != or_else:
                return self.get(or_else, or_else=or_else)
            raise self.error("the repository has no such revision") from None
        except errors.LocalEntryNotFoundError as error:
            raise self.error(self._not_cached(error), NotCachedError) from None
        except errors.EntryNotFoundError:
            raise self.error(f"the repository has no such file{_or(self.fix)}", NoSuchFileError) from None
        except Exception as error:  # whatever its HTTP client raises: time-outs, broken streams, full disks
            raise self.error(
                f"the download failed ({reason(error)}); nothing was kept of it, so try again{_or(self.fix)}"
            ) from None

    def told_digest(self, commit: str) -> str | None:
        """Return the digest that the Hub tells of a file of a commit; None where it is not to be asked, or silent."""
        from huggingface_hub import (
            constants,
            get_hf_file_metadata,  # pyright: ignore[reportUnknownVariableType]
            hf_hub_url,
        )

        if self.local_files_only or constants.HF_HUB_OFFLINE:
            return None
        try:
            url = hf_hub_url(self.repo, self.name, revision=commit)
            return ask_hub(lambda: get_hf_file_metadata(url).etag, self.repo)
        except Exception:  # whatever its HTTP client raises
            return None

    def _not_cached(self, error: Exception) -> str:
        from huggingface_hub import constants

        if self.local_files_only or constants.HF_HUB_OFFLINE:
            why = "local_files_only is set" if self.local_files_only else "HF_HUB_OFFLINE is set"
        else:
            why = f"the Hub cannot be reached ({reason(error.__cause__ or error)})"
        at = f" --revision {self.revision}" if self.revision else ""
        return (
            f"it is not in the local cache, and {why}; run `hf download {self.repo} {self.name}{at}` where there is a "
            f"network{_or(self.fix)}"
        )


def _is_commit(revision: str | None) -> bool:
    return revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def _cached(repo: str, commit: str | None, name: str) -> Path | None:
    """Return a file of a commit from the cache without importing the Hub's client, which takes 0.15 s."""
    if commit is None or not _is_commit(commit):
        return None
    path = repository_cache(repo) / "snapshots" / commit / name
    return path if path.is_file() else None


def _commit_of(path: Path) -> str:
    """Return the commit of a file in the cache: `.../snapshots/<commit>/<path in the repository>`."""
    parts = path.parts
    return parts[len(parts) - parts[::-1].index("snapshots")]


def _digest(path: Path, asked: _Asked, *, verify: bool, alone: bool) -> str:
    """Return the SHA-256 of a file of the cache, which also has to be what the Hub tells of it.

    A cache without links, as on Windows, does not tell that: then the Hub is asked once. Where it cannot be, and the
    file is `alone`, with neither pin nor entry to be held to, the log says so.

    Raises:
        DownloadError: it has other bytes; it is removed from the cache, so that it can be downloaded again.
    """
    content = path.resolve()
    mark = _mark(content)
    if not verify:
        with suppress(OSError, ConfigError):
            expect_file(mark)
            known = mark.read_text(encoding="ascii")
            if len(known) == 64:
                return known
    digest = sha256_of(content)
    told = path.readlink().name if path.is_symlink() else asked.told_digest(_commit_of(path))
    if told is None and alone:
        _log.warning("%s: the bytes were compared with nothing: the cache tells no digest, nor does the Hub", path)
    found = digest if told and len(told) == 64 else _git_sha1(content) if told and len(told) == 40 else told
    if found != told:
        removed = _removed(content, path)
        raise asked.error(
            f"it is damaged: the Hub tells digest {told}, found {found} in {content}; "
            + ("it was removed from the cache, so ask again" if removed else "remove that file and ask again")
        )
    with suppress(OSError, ConfigError):  # a user without a folder of his own has it read each time
        expect_file(mark)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(digest, encoding="ascii")
    return digest


def _mark(content: Path) -> Path:
    """Return the file that holds the digest of a file that was read once, as long as it is the same file."""
    about = content.stat()
    key = json.dumps([str(content), about.st_size, about.st_mtime_ns])
    return user_folder() / "digests" / hashlib.sha256(key.encode()).hexdigest()


def _git_sha1(path: Path) -> str:
    """Return what git calls the content of a file: the SHA-1 over its size and its bytes."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _removed(*paths: Path) -> bool:
    try:
        for path in paths:
            path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _or(fix: str) -> str:
    return f", or {fix}" if fix else ""
