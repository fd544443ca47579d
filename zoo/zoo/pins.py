"""Pins: which bytes a file of the Hub was when it was first downloaded, so that it stays the same ever after.

A branch of a repository can be moved. So the first download of a file is written down in `pretrained.lock.json` of
the user's folder (`ZOO_HOME`): repository and revision as they were asked for, and of each file the commit, the SHA-256
and the size. Later downloads, on this machine or on one that was given the lock file, are held to it. Of a
repository that was taken as a whole, the list of its files is there too. Whoever wants
what the Hub has now takes the file's lines out.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from zoo.user_files import user_folder
from zoo.whole_files import replacing
from zoo_core.errors import ConfigError, Problem, SaveError

__all__ = ["Listing", "Pin", "lock_file", "pin", "pin_listing", "pinned", "pinned_listing"]

FORMAT = 1

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pin:
    """What a file was: the commit of its repository, its SHA-256 in hexadecimal, its bytes."""

    commit: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Listing:
    """The files of a repository that make a model, and the commit that they are of."""

    commit: str
    files: tuple[str, ...]


@dataclass
class _Lock:
    """What the lock file tells, by repository and revision."""

    pins: dict[str, dict[str, Pin]] = field(default_factory=dict[str, dict[str, Pin]])
    listings: dict[str, Listing] = field(default_factory=dict[str, Listing])


def lock_file() -> Path:
    """Return the file that holds the pins of this user; it need not be there."""
    return user_folder() / "pretrained.lock.json"


def pinned(repo: str, file: str, revision: str | None = None) -> Pin | None:
    """Return the pin of a file, or None where it was never downloaded.

    Raises:
        ConfigError: the lock file is no lock file.
    """
    return _read(lock_file()).pins.get(_source(repo, revision), {}).get(file)


def pinned_listing(repo: str, revision: str | None = None) -> Listing | None:
    """Return the files of a repository that was taken as a whole, or None where it was not.

    Raises:
        ConfigError: the lock file is no lock file.
    """
    return _read(lock_file()).listings.get(_source(repo, revision))


def pin(repo: str, file: str, found: Pin, revision: str | None = None) -> None:
    """Write down what a file was, in place of what was written down before.

    Two processes may do so at once; both pins are kept. A user whose folder cannot be written to is told in the log.
    """

    def change(lock: _Lock) -> None:
        lock.pins.setdefault(_source(repo, revision), {})[file] = found

    _change(f"{file} of {repo}", change)


def pin_listing(repo: str, found: Listing, revision: str | None = None) -> None:
    """Write down which files of a repository make a model, once all of them are pinned; else as `pin`."""

    def change(lock: _Lock) -> None:
        lock.listings[_source(repo, revision)] = found

    _change(f"the list of files of {repo}", change)


def _change(what: str, change: Callable[[_Lock], None]) -> None:
    """Read the lock file, change it and write it, while no other process does."""
    from filelock import FileLock

    path = lock_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(path.name + ".lock")):
            lock = _read(path)
            change(lock)
            _write(path, lock)
    except (OSError, SaveError) as error:
        _log.warning("%s is not pinned, so it may be another one next time: %s", what, error)


def _source(repo: str, revision: str | None) -> str:
    return f"{repo}@{revision}" if revision else repo


def _read(path: Path) -> _Lock:
    try:
        told: Any = json.loads(path.read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise ValueError(f"expected format {FORMAT}, found {told['format']!r}")
        pins = {source: {file: Pin(**pin) for file, pin in files.items()} for source, files in told["pins"].items()}
        listings = {
            source: Listing(one["commit"], tuple(one["files"])) for source, one in told.get("listings", {}).items()
        }
        return _Lock(pins, listings)
    except (FileNotFoundError, NotADirectoryError):
        return _Lock()
    except OSError as error:
        raise ConfigError(Problem(f"cannot be read: {error.strerror or error}", source=str(path))) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        what = f"is no lock file of zoo: {error}; mend it, or remove it to pin what the Hub has now"
        raise ConfigError(Problem(what, source=str(path))) from None


def _write(path: Path, lock: _Lock) -> None:
    pins = {
        source: {file: asdict(files[file]) for file in sorted(files)} for source, files in sorted(lock.pins.items())
    }
    listings = {source: asdict(one) for source, one in sorted(lock.listings.items())}
    with replacing(path) as (scratch,):
        told = {"format": FORMAT, "pins": pins, "listings": listings}
        scratch.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
