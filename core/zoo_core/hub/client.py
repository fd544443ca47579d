"""Calls of the Hub's client under guard.

The client takes whatever digest a server tells as the name of a file, waits as long as a server asks it to, and opens
whatever stands in its cache. So each call runs in a thread of its own: its answers are checked before a byte is
written, and it is abandoned if nothing has come for a while.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

from zoo_core.documents import expect_file
from zoo_core.errors import ConfigError, DownloadError, describe

__all__ = ["TIMEOUT", "NoAnswerError", "ask_hub", "is_commit", "repository_cache"]

TIMEOUT = "ZOO_HUB_TIMEOUT"
"""Environment variable: so many seconds may pass without progress."""
SECONDS = 60.0
CHUNK = 2**18
"""Bytes that count as progress: the client writes to the disk in chunks of this size at most."""

_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ASKING = ("_get_metadata_or_catch_error", "get_hf_file_metadata")
"""Functions of the client that return what a server tells of a file, the one to be preferred first."""

T = TypeVar("T")

_log = logging.getLogger(__name__)
_call = threading.local()


class NoAnswerError(DownloadError):
    """Nothing came from the Hub for a while."""


def repository_cache(repo: str) -> Path:
    """Return the folder of a repository in the cache of the client."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def is_commit(revision: str | None) -> bool:
    """Tell whether a revision is a whole commit, which no branch or tag can move."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def ask_hub(ask: Callable[[], T], repo: str) -> T:
    """Call the client, and return what it returns.

    Args:
        ask: the call; it starts no thread that reads answers.
        repo: the repository that it is about.

    Raises:
        NoAnswerError: nothing came for `ZOO_HUB_TIMEOUT` seconds, 60 unless it is set.
        DownloadError: the server told a digest or commit that is none; nothing was written. Or something in the cache
            is no file.
        Exception: what the client raises.
    """
    limit = _limit()
    _watch_answers()
    outcome: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        _call.guarded = True
        try:
            outcome.put((ask(), None))
        except BaseException as error:
            outcome.put((None, error))

    thread = threading.Thread(target=run, daemon=True, name=f"hub: {repo}")
    with _LastWarning(thread) as warning:
        thread.start()
        value, error = _wait(outcome, thread, repo, limit, warning)
    if error is not None:
        raise error
    return cast("T", value)


def _wait(
    outcome: queue.SimpleQueue[Any], thread: threading.Thread, repo: str, limit: float, warning: _LastWarning
) -> Any:
    """Return what a thread put into a queue; the thread is ended when it has made no progress for `limit` seconds."""
    cache = repository_cache(repo)
    progress, since, has_warned = _progress(cache), time.monotonic(), False
    while True:
        with suppress(queue.Empty):
            return outcome.get(timeout=min(1.0, limit / 4))
        current, waited = _progress(cache), time.monotonic() - since
        if current != progress:
            progress, since, has_warned = current, time.monotonic(), False
        elif waited >= limit:
            if thread.ident is not None:  # ends when it runs Python again, which frees its locks and files
                exception = ctypes.py_object(SystemExit)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), exception)
            raise NoAnswerError(
                f"nothing came from the Hub for {limit:g} seconds{warning.text()}; try again later, or set {TIMEOUT} "
                "to more seconds"
            )
        elif waited >= limit / 4 and not has_warned:
            has_warned = True
            what = "%s: nothing came from the Hub for %.0f seconds%s; after %g seconds (%s) it is given up"
            _log.warning(what, repo, waited, warning.text(), limit, TIMEOUT)


def _limit() -> float:
    """Return the seconds that may pass without progress."""
    text = os.environ.get(TIMEOUT, "")
    try:
        limit = float(text) if text else SECONDS
    except ValueError:
        limit = 0.0
    if not 0 < limit <= 10**6:
        raise DownloadError(f"{TIMEOUT} is a number of seconds, such as 60, found {describe(text)}")
    return limit


def _progress(cache: Path) -> tuple[int, int]:
    """Return the number of files that a repository has in the cache, unfinished ones included, and their bytes."""
    count = size = 0
    with suppress(OSError), os.scandir(cache / "blobs") as entries:
        for entry in entries:
            count += 1
            with suppress(OSError):
                size += entry.stat().st_size
    return count, size


class _LastWarning(logging.Handler):
    """The last warning that the client logged in a thread: it says there that a server asked it to wait."""

    def __init__(self, thread: threading.Thread) -> None:
        super().__init__(logging.WARNING)
        self._thread, self._message = thread, ""

    def __enter__(self) -> _LastWarning:
        logging.getLogger("huggingface_hub").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("huggingface_hub").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Remember a warning of the thread."""
        if record.thread == self._thread.ident:
            self._message = " ".join(record.getMessage().split())[:200]

    def text(self) -> str:
        """Return the warning for a message, or nothing."""
        return f" (its client: {self._message})" if self._message else ""


@functools.cache
def _watch_answers() -> None:
    """Have the answers of a server about a file checked in calls of `ask_hub`; calls of others pass unchecked."""
    from huggingface_hub import constants, file_download

    constants.DOWNLOAD_CHUNK_SIZE = min(constants.DOWNLOAD_CHUNK_SIZE, CHUNK)
    client: Any = file_download
    name = next(name for name in _ASKING if hasattr(client, name))
    ask_about_file: Callable[..., Any] = getattr(client, name)

    @functools.wraps(ask_about_file)
    def checked(*args: Any, **options: Any) -> Any:
        answer: Any = ask_about_file(*args, **options)
        if getattr(_call, "guarded", False):
            digest, commit = (answer.etag, answer.commit_hash) if hasattr(answer, "etag") else answer[1:3]
            _check(digest, commit, options.get("storage_folder"))
        return answer

    setattr(client, name, checked)


def _check(digest: str | None, commit: str | None, cache: str | None) -> None:
    """Refuse a digest or commit that would lead out of the cache, and an entry of the cache that is no regular file."""
    for what, text, pattern in (("digest", digest, _DIGEST), ("commit", commit, _COMMIT)):
        if text is not None and pattern.fullmatch(text) is None:
            raise DownloadError(
                f"the server tells a {what} that is none: {describe(text)}; nothing was written. Ask the Hub itself, "
                "or whoever runs the server that HF_ENDPOINT names"
            )
    if digest is None or cache is None:
        return
    folder = Path(cache)
    try:
        expect_file(folder / "blobs" / digest)
        expect_file(folder.parent / ".locks" / folder.name / f"{digest}.lock")
    except ConfigError as error:
        raise DownloadError(str(error)) from None
