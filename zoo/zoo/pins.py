"""Pins: which bytes a file of the Hub was when it was first downloaded, so that it stays the same ever after.

A branch of a repository can be moved. So the first download of a file is written down in `pretrained.lock.json` of
the user's folder (`ZOO_HOME`): repository and revision as they were asked for, and of each file the commit, the SHA-256
and the size. Later downloads, on this machine or on one that was given the lock file, are held to it. Whoever wants
what the Hub has now takes the file's lines out.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zoo.user_files import user_folder
from zoo.whole_files import replacing
from zoo_core.errors import ConfigError, Problem, SaveError

__all__ = ["Pin", "lock_file", "pin", "pinned"]

FORMAT = 1

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pin:
    """What a file was: the commit of its repository, its SHA-256 in hexadecimal, its bytes."""

    commit: str
    sha256: str
    size: int


def lock_file() -> Path:
    """Return the file that holds the pins of this user; it need not be there."""
    return user_folder() / "pretrained.lock.json"


def pinned(repo: str, file: str, revision: str | None = None) -> Pin | None:
    """Return the pin of a file, or None where it was never downloaded.

    Raises:
        ConfigError: the lock file is no lock file.
    """
    return _read(lock_file()).get(_source(repo, revision), {}).get(file)


def pin(repo: str, file: str, found: Pin, revision: str | None = None) -> None:
    """Write down what a file was, in place of what was written down before.

    Two processes may do so at once; both pins are kept. A user whose folder cannot be written to is told in the log.
    """
    from filelock import FileLock

    path = lock_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(path.name + ".lock")):
            pins = _read(path)
            pins.setdefault(_source(repo, revision), {})[file] = found
            _write(path, pins)
    except (OSError, SaveError) as error:
        _log.warning("%s of %s is not pinned, so it may be another file next time: %s", file, repo, error)


def _source(repo: str, revision: str | None) -> str:
    return f"{repo}@{revision}" if revision else repo


def _read(path: Path) -> dict[str, dict[str, Pin]]:
    try:
        told: Any = json.loads(path.read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise ValueError(f"expected format {FORMAT}, found {told['format']!r}")
        return {source: {file: Pin(**pin) for file, pin in files.items()} for source, files in told["pins"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigError(Problem(f"cannot be read: {error.strerror or error}", source=str(path))) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        what = f"is no lock file of zoo: {error}; mend it, or remove it to pin what the Hub has now"
        raise ConfigError(Problem(what, source=str(path))) from None


def _write(path: Path, pins: dict[str, dict[str, Pin]]) -> None:
    told = {source: {file: asdict(pins[source][file]) for file in sorted(pins[source])} for source in sorted(pins)}
    with replacing(path) as (scratch,):
        scratch.write_text(json.dumps({"format": FORMAT, "pins": told}, indent=1) + "\n", encoding="utf-8")
