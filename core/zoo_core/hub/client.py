"""The Hub's client under guard: what it is answered, how long it waits, and what lies in its cache.

What you would not guess: the client takes whatever digest a server tells as the name of a file, waits as long as a
server asks it to, and opens whatever stands in its cache. So a call of it runs in a thread of its own: its answers are
looked at before a byte is written, and it is given up where nothing has come for a while.
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

__all__ = ["TIMEOUT", "ask_hub", "is_commit", "repository_cache"]

TIMEOUT = "ZOO_HUB_TIMEOUT"
"""Environment variable: so many seconds may pass without progress."""
SECONDS = 60.0
CHUNK = 2**18
"""Bytes that count as progress: the client writes to the disk in chunks of this size at most."""

_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ANSWERS = ("_get_metadata_or_catch_error", "get_hf_file_metadata")
"""Functions of the client that return what a server tells of a file, the one to be preferred first."""

T = TypeVar("T")

_log = logging.getLogger(__name__)
_call = threading.local()


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
        DownloadError: the server told a digest or commit that is none; nothing was written. Or nothing came for
            `ZOO_HUB_TIMEOUT` seconds, 60 unless it is set. Or something in the cache is no file.
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
    with _Said(thread) as said:
        thread.start()
        value, error = _awaited(outcome, thread, repo, limit, said)
    if error is not None:
        raise error
    return cast("T", value)


def _awaited(outcome: queue.SimpleQueue[Any], thread: threading.Thread, repo: str, limit: float, said: _Said) -> Any:
    """Return what a thread put into a queue, as long as it makes progress."""
    cache = repository_cache(repo)
    written, since, told = _written(cache), time.monotonic(), False
    while True:
        with suppress(queue.Empty):
            return outcome.get(timeout=min(1.0, limit / 4))
        now, waited = _written(cache), time.monotonic() - since
        if now != written:
            written, since, told = now, time.monotonic(), False
        elif waited >= limit:
            _end(thread)
            raise DownloadError(
                f"nothing came from the Hub for {limit:g} seconds{said.last()}; try again later, or set {TIMEOUT} to "
                "more seconds"
            )
        elif waited >= limit / 4 and not told:
            told = True
            what = "%s: nothing came from the Hub for %.0f seconds%s; after %g seconds (%s) it is given up"
            _log.warning(what, repo, waited, said.last(), limit, TIMEOUT)


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


def _written(cache: Path) -> tuple[int, int]:
    """Return how many files a repository has in the cache, those that are not whole included, and their bytes."""
    count = size = 0
    with suppress(OSError), os.scandir(cache / "blobs") as entries:
        for entry in entries:
            count += 1
            with suppress(OSError):
                size += entry.stat().st_size
    return count, size


def _end(thread: threading.Thread) -> None:
    """Have a thread end when it runs Python again, which frees its locks and files; one that sleeps does so later."""
    if thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))


class _Said(logging.Handler):
    """The last warning of the client in a thread: it tells there that it was asked to wait."""

    def __init__(self, thread: threading.Thread) -> None:
        super().__init__(logging.WARNING)
        self._thread, self._last = thread, ""

    def __enter__(self) -> _Said:
        logging.getLogger("huggingface_hub").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("huggingface_hub").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning of the thread."""
        if record.thread == self._thread.ident:
            self._last = " ".join(record.getMessage().split())[:200]

    def last(self) -> str:
        """Return the last warning, for a message."""
        return f" (its client: {self._last})" if self._last else ""


@functools.cache
def _watch_answers() -> None:
    """Have what a server tells of a file looked at in calls of `ask_hub`; calls of others pass as they are."""
    from huggingface_hub import constants, file_download

    constants.DOWNLOAD_CHUNK_SIZE = min(constants.DOWNLOAD_CHUNK_SIZE, CHUNK)
    client: Any = file_download
    name = next(name for name in _ANSWERS if hasattr(client, name))
    answer: Callable[..., Any] = getattr(client, name)

    @functools.wraps(answer)
    def looked_at(*args: Any, **options: Any) -> Any:
        found: Any = answer(*args, **options)
        if getattr(_call, "guarded", False):
            digest, commit = (found.etag, found.commit_hash) if hasattr(found, "etag") else found[1:3]
            _check(digest, commit, options.get("storage_folder"))
        return found

    setattr(client, name, looked_at)


def _check(digest: str | None, commit: str | None, cache: str | None) -> None:
    """Refuse what would lead out of the cache as the name of a file, and what is there and no file."""
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
