"""Lock file of what was downloaded from the Hub.

A branch of a repository can be moved. So the first download of a file is recorded in `pretrained.lock.json` of the
user's folder (`ZOO_HOME`): repository and revision as they were asked for, commit, SHA-256 and size. This is its pin.
Later downloads are compared with it, on this machine or on one that was given the lock file. Files that belong
together, those of a model or of a tokenizer, have the list of them recorded as well. To take what the Hub has now,
remove the lines of the repository.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from zoo_core.config import Config
from zoo_core.config.fields import Commit, FileName, Sha256
from zoo_core.documents import Bounds, expect_file, read_text
from zoo_core.documents.json_reader import parse_json
from zoo_core.errors import ConfigError, SaveError
from zoo_core.files.atomic import atomic_write
from zoo_core.files.user_folders import user_data_file

__all__ = ["Listing", "Pin", "lock_file", "pin", "pin_listing", "pinned", "pinned_listing"]

FORMAT = 1
BOUNDS = Bounds(bytes=16 * 2**20, depth=8, values=1_000_000)
LOCK_SECONDS = 10
"""How long to wait for another process that writes a pin, or for a file system that has no locks."""

_log = logging.getLogger(__name__)


class Pin(Config):
    """What a file was: the commit of its repository, its SHA-256 in hexadecimal, its bytes."""

    commit: Commit
    sha256: Sha256
    size: Annotated[int, Field(ge=0)]


class Listing(Config):
    """The files of a repository that make a model or a part of it, and the commit that they are of."""

    commit: Commit
    files: Annotated[tuple[FileName, ...], Field(strict=False, min_length=1)]


class _Lock(Config):
    """The lock file, by repository and revision."""

    format: Literal[1]
    pins: dict[str, dict[str, Pin]]
    listings: dict[str, Listing] = {}


def lock_file() -> Path:
    """Return the file that holds the pins of this user; it need not be there."""
    return user_data_file("pretrained.lock.json")


def pinned(repo: str, file: str, revision: str | None = None) -> Pin | None:
    """Return the pin of a file, or None where it was never downloaded.

    Raises:
        ConfigError: the lock file is no lock file.
    """
    return _read(lock_file()).pins.get(_source(repo, revision), {}).get(file)


def pinned_listing(repo: str, revision: str | None = None, part: str = "") -> Listing | None:
    """Return the files of a repository that make a part of a model, or all of it; None where it was never taken.

    Raises:
        ConfigError: the lock file is no lock file.
    """
    return _read(lock_file()).listings.get(_source(repo, revision, part))


def pin(repo: str, file: str, state: Pin, revision: str | None = None) -> None:
    """Record what a file is, in place of what was recorded before.

    Two processes may do so at once; both pins are kept. If the folder cannot be written to, the log says so.
    """

    def change(lock: _Lock) -> _Lock:
        source = _source(repo, revision)
        return lock.model_copy(update={"pins": {**lock.pins, source: {**lock.pins.get(source, {}), file: state}}})

    _change(f"{file} of {repo}", change)


def pin_listing(repo: str, listing: Listing, revision: str | None = None, part: str = "") -> None:
    """Record which files of a repository make a model or a part of it, once each has its pin; else as `pin`."""

    def change(lock: _Lock) -> _Lock:
        return lock.model_copy(update={"listings": {**lock.listings, _source(repo, revision, part): listing}})

    _change(f"the list of files of {repo}", change)


def _change(what: str, change: Callable[[_Lock], _Lock]) -> None:
    """Read the lock file, change it and write it, while no other process does."""
    from filelock import FileLock

    path = lock_file()
    guard = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        expect_file(guard)
        with FileLock(guard, timeout=LOCK_SECONDS):
            lock = change(_read(path))
            pins = {
                source: {name: state.data() for name, state in sorted(files.items())}
                for source, files in sorted(lock.pins.items())
            }
            listings = {source: listing.data() for source, listing in sorted(lock.listings.items())}
            document = {"format": FORMAT, "pins": pins, "listings": listings}
            with atomic_write(path) as (scratch,):
                scratch.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    except (OSError, SaveError) as error:
        _log.warning("%s is not pinned, so it may be another one next time: %s", what, error)


def _source(repo: str, revision: str | None, part: str = "") -> str:
    """Return the key of a repository; no name or revision has a colon."""
    source = f"{repo}@{revision}" if revision else repo
    return f"{source}:{part}" if part else source


def _read(path: Path) -> _Lock:
    try:
        return _parsed(read_text(path, BOUNDS.bytes), str(path))
    except ConfigError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return _Lock(format=FORMAT, pins={})
        problems = "; ".join(str(error).splitlines())
        raise ConfigError(f"{problems}; mend this lock file, or remove it to pin what the Hub has now") from None


@lru_cache(maxsize=2)
def _parsed(text: str, source: str) -> _Lock:
    return _Lock.from_document(parse_json(text, source, BOUNDS))
