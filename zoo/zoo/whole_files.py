"""Files that are there whole or not at all: written beside their name, brought to the disk, then renamed."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from zoo_core.errors import SaveError, ZooError

__all__ = ["replacing"]


@contextmanager
def replacing(*targets: Path) -> Generator[list[Path]]:
    """Yield a scratch file for each target; those that are there when the block ends well take their names.

    Missing folders are made. Names are taken in the order given, the last one last.

    Raises:
        SaveError: a file cannot be written; what stood there before still does.
    """
    scratch = [target.with_name(f".{target.name}.{os.getpid()}.tmp") for target in targets]
    try:
        for target in targets:
            target.parent.mkdir(parents=True, exist_ok=True)
        yield scratch
        written = [(new, target) for new, target in zip(scratch, targets, strict=True) if new.exists()]
        for new, _ in written:
            _sync(new)
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


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
