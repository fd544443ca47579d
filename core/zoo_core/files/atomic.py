"""Files that are there whole or not at all.

A file is written beside its name, brought to the disk, and then renamed. A process that is killed leaves its scratch
file, `.NAME.PID.tmp`, which the next writer to that name removes.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from zoo_core.errors import SaveError, ZooError

__all__ = ["SCRATCH", "atomic_write", "scratch_target", "sweep"]

SCRATCH = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)\.tmp", re.DOTALL)
"""Names of scratch files."""
SECONDS_ABANDONED = 24 * 3600.0
"""After this time without a write a scratch file is abandoned, whatever process has its number now."""


@contextmanager
def atomic_write(*targets: Path) -> Generator[list[Path]]:
    """Yield a scratch file for each target; those that are there when the block ends well take their names.

    Missing folders are made. Names are taken in the order given, the last one last.

    Raises:
        SaveError: a file cannot be written; what stood there before still does.
    """
    scratch = [target.with_name(f".{target.name}.{os.getpid()}.tmp") for target in targets]
    try:
        for target in targets:
            target.parent.mkdir(parents=True, exist_ok=True)
        for folder in {target.parent for target in targets}:
            sweep(folder, re.compile("|".join(re.escape(target.name) for target in targets)))
        yield scratch
        written = [(new, target) for new, target in zip(scratch, targets, strict=True) if new.exists()]
        for new, _ in written:
            with new.open("rb+") as file:
                os.fsync(file.fileno())
        for new, target in written:
            new.replace(target)
    except ZooError:
        raise
    except OSError as error:
        raise SaveError(f"{targets[-1]} cannot be written: {error.strerror or error}") from error
    finally:
        for new in scratch:
            with suppress(OSError):
                new.unlink(missing_ok=True)


def scratch_target(path: Path) -> str:
    """Return the name that a scratch file is to take, or nothing where `path` is none."""
    match = SCRATCH.fullmatch(path.name)
    return match["name"] if match else ""


def sweep(folder: Path, names: re.Pattern[str], *, alone: bool = False) -> None:
    """Remove the scratch files of writers that are gone, of those targets whose names match.

    Args:
        folder: where they lie.
        names: has to match the whole name of a target.
        alone: no other thread of this process writes here, so that a file with its number is of one before it.
    """
    with suppress(OSError):
        for path in folder.iterdir():
            match = SCRATCH.fullmatch(path.name)
            if match and names.fullmatch(match["name"]) and _is_abandoned(path, int(match["pid"]), alone):
                path.unlink(missing_ok=True)


def _is_abandoned(path: Path, pid: int, alone: bool) -> bool:
    if pid == os.getpid():
        return alone
    if os.name == "posix":  # elsewhere asking whether a process is there ends it
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return True
        except PermissionError:
            pass
    return time.time() - path.stat().st_mtime > SECONDS_ABANDONED
