"""Verified files of the Hugging Face Hub.

The Hub's client checks the size of what it downloads and not the bytes, although the Hub tells their digest (SHA-256 of
a large file, git's SHA-1 of a small one); the cache names each file by it, where the system has links. Here every file
is compared with that digest, with its pin (`zoo_core.hub.lockfile`), and with the digest of its entry where there is
one. A file is read for its digest once; size and time tell whether it is still the file that was read.
"""

from __future__ import annotations

import hashlib
import json
import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from zoo_core.documents import expect_file
from zoo_core.errors import ConfigError
from zoo_core.files.hashing import sha256_of
from zoo_core.files.user_folders import user_cache_folder
from zoo_core.hub.client import is_commit, repository_cache
from zoo_core.hub.lockfile import Pin, lock_file, pin, pinned
from zoo_core.hub.request import HubRequest, NoSuchFileError, NotCachedError

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

    What is taken where `commit` is None, and what its bytes are compared with beside the digest that the Hub tells:

    | `revision`    | `sha256` | pin | taken from        | compared with   | written to the lock file    |
    |---------------|----------|-----|-------------------|-----------------|-----------------------------|
    | any           | no       | no  | `revision`        |                 | the pin                     |
    | any           | no       | yes | the pin's commit  | pin             | another commit of its bytes |
    | branch or tag | yes      | no  | `revision`        | `sha256`        | the pin                     |
    | branch or tag | yes      | yes | the pin's commit  | `sha256` and pin | another commit of its bytes |
    | commit        | yes      | not read | `revision`   | `sha256`        | nothing                     |

    Args:
        repo: `organisation/name`.
        name: path of the file in the repository.
        revision: branch, tag or commit; the main branch where None.
        commit: which state of the revision is taken.
        sha256: digest that the file has to have.
        local_files_only: never ask the Hub, as with `HF_HUB_OFFLINE=1`.
        verify: read the file for its digest even where it was read before.
        fix: what else to do where the file is not to be had, for the error.

    Raises:
        NoSuchFileError: the repository has no such file.
        NotCachedError: it is not in the cache, and the Hub cannot be asked.
        DownloadError: there is no such repository or revision, the download failed, or the file has other bytes.
    """
    request = HubRequest(repo, revision, local_files_only, fix)
    is_settled = sha256 is not None and is_commit(revision)  # commit and digest say all that a pin could
    expected = None if is_settled else pinned(repo, name, revision)
    state = commit or (expected.commit if expected else revision)
    path = _cached(repo, state, name) or request.download(name, state)
    try:
        expect_file(path)
    except ConfigError as error:
        raise request.error(str(error), file=name) from None
    unproven = sha256 is None and expected is None
    digest = _digest(path, request, name, verify=verify, unproven=unproven)
    actual = Pin(commit=_commit_of(path), sha256=digest, size=path.stat().st_size)
    if sha256 is not None and digest != sha256:
        message = f"expected sha256 {sha256}, found {digest} in {path}: it is another file than is meant"
        raise request.error(message, file=name)
    if expected is not None and (actual.sha256, actual.size) != (expected.sha256, expected.size):
        raise request.error(
            f"it is not the file that was pinned at first: sha256 {expected.sha256} of {expected.size} bytes then "
            f"(commit {expected.commit}), {digest} of {actual.size} bytes now (commit {actual.commit}, {path}). If the "
            "cache is damaged, remove that file and ask again; to take what the Hub has now, take its lines out of "
            f"{lock_file()}",
            file=name,
        )
    if not is_settled and actual != expected:
        pin(repo, name, actual, revision)
    return HubFile(path, repo, name, actual.commit, digest, actual.size)


def _cached(repo: str, commit: str | None, name: str) -> Path | None:
    """Return a file of a commit from the cache without importing the Hub's client, which takes 0.15 s."""
    if commit is None or not is_commit(commit):
        return None
    path = repository_cache(repo) / "snapshots" / commit / name
    return path if path.is_file() else None


def _commit_of(path: Path) -> str:
    """Return the commit of a file in the cache: `.../snapshots/<commit>/<path in the repository>`."""
    parts = path.parts
    return parts[len(parts) - parts[::-1].index("snapshots")]


def _digest(path: Path, request: HubRequest, name: str, *, verify: bool, unproven: bool) -> str:
    """Return the SHA-256 of a file of the cache, which also has to be what the Hub tells of it.

    A cache without links, as on Windows, does not tell that: then the Hub is asked once. If it cannot be asked, and
    there is neither a pin nor an entry to compare the file with (`unproven`), the log says so.

    Raises:
        DownloadError: it has other bytes; it is removed from the cache, so that it can be downloaded again.
    """
    content = path.resolve()
    about = content.stat()
    key = json.dumps([str(content), about.st_size, about.st_mtime_ns])  # another file has another mark
    mark = user_cache_folder() / "digests" / hashlib.sha256(key.encode()).hexdigest()
    if not verify:
        with suppress(OSError, ConfigError):
            expect_file(mark)
            digest = mark.read_text(encoding="ascii")
            if len(digest) == 64:
                return digest
    digest = sha256_of(content)
    expected = path.readlink().name if path.is_symlink() else request.advertised_digest(name, _commit_of(path))
    if expected is None and unproven:
        _log.warning("%s: the bytes were compared with nothing: the cache tells no digest, nor does the Hub", path)
    actual = _git_sha1(content) if expected is not None and len(expected) == 40 else digest
    if expected is not None and len(expected) in (40, 64) and actual != expected:
        try:
            content.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            fix = "it was removed from the cache, so ask again"
        except OSError:
            fix = "remove that file and ask again"
        message = f"it is damaged: the Hub tells digest {expected}, found {actual} in {content}; {fix}"
        raise request.error(message, file=name)
    with suppress(OSError, ConfigError):  # a user whose folder is closed has the file read each time
        expect_file(mark)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(digest, encoding="ascii")
    return digest


def _git_sha1(path: Path) -> str:
    """Return what git calls the content of a file: the SHA-1 over its size and its bytes."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
