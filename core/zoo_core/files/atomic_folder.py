"""Folders that are there whole or not at all.

A folder is written beside its name, brought to the disk, and then swapped in. Linux and macOS can exchange the names of
two folders in one step, so that a process killed at any moment leaves the old folder or the new one. Where a file
system cannot, the old folder is moved aside first; `restore` brings it back if a kill came between the two steps. The
next save sweeps up what a process left that was killed, or interrupted while it cleaned up: a process holds the lock of
a file beside its scratch folder as long as it lives.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from zoo_core.errors import SaveError, ZooError

__all__ = ["atomic_folder", "restore"]

_CALLS = {"linux": ("renameat2", -100), "darwin": ("renameatx_np", -2)}
"""The system call, and what it takes for the current folder (AT_FDCWD)."""
_EXCHANGE = 2
"""RENAME_EXCHANGE of Linux, and RENAME_SWAP of macOS."""
_UNABLE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM}
"""Errors of kernels and file systems that cannot exchange names."""


@contextmanager
def atomic_folder(target: Path) -> Generator[Path]:
    """Yield a scratch folder that takes the place of `target` when the block ends well, and vanishes otherwise.

    Two processes may do so at once: the folder is then that of the one that ended last, whole.

    Raises:
        SaveError: it cannot be written; what stood there before still does.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        with _locked_name(target) as scratch:
            try:
                scratch.mkdir()
                yield scratch
                _finish(scratch)
                _take_place(scratch, target)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    except ZooError:
        raise
    except OSError as error:
        raise SaveError(f"{target} cannot be written: {error.strerror or error}") from error


def restore(target: Path) -> None:
    """Bring back the folder that a kill left aside, where nothing stands at `target`; usually there is none."""
    if target.exists():
        return
    for aside in _leftovers(target, "old"):
        with suppress(OSError):
            aside.rename(target)
            return


def _prefix(target: Path, what: str) -> str:
    return f".{target.name}.{what}."


def _leftovers(target: Path, what: str) -> list[Path]:
    """Return what stands beside `target` under a name that was drawn for it; `.m.old.new.x` is one of `m.old`."""
    name = re.compile(re.escape(_prefix(target, what)) + r"[^.]+(\.lock)?")
    try:
        return sorted(path for path in target.parent.iterdir() if name.fullmatch(path.name))
    except OSError:  # a folder that is not there, or is closed
        return []


@contextmanager
def _locked_name(target: Path) -> Generator[Path]:
    """Yield a free name for a scratch folder; the lock of the file `NAME.lock` is held meanwhile.

    A file system without locks has none taken: then nobody can take that of another process either.
    """
    from filelock import FileLock

    while True:
        scratch = target.parent / f"{_prefix(target, 'new')}{secrets.token_hex(8)}"  # target may have no name
        lock = FileLock(_lock_of(scratch))
        try:
            with suppress(OSError, NotImplementedError):
                lock.acquire()
            if _lock_of(scratch).exists() or not lock.is_locked:  # else another process swept it up before
                yield scratch
                return
        finally:
            _unlink(_lock_of(scratch))  # first: nobody may take a lock whose file is about to go
            lock.release()


def _lock_of(scratch: Path) -> Path:
    return scratch.with_name(f"{scratch.name}.lock")


def _unlink(lock: Path) -> None:
    """Remove the file of a lock that is held; Windows keeps it until the lock is released."""
    with suppress(OSError):
        lock.unlink(missing_ok=True)


def _sweep(target: Path) -> None:
    """Remove what processes left: scratch folders whose lock nobody holds (killed), or that have none (Ctrl-C)."""
    from filelock import FileLock

    restore(target)
    for path in _leftovers(target, "new"):
        scratch = path.with_suffix("") if path.suffix == ".lock" else path
        if not _lock_of(scratch).exists():
            shutil.rmtree(scratch, ignore_errors=True)
            continue
        with suppress(OSError, NotImplementedError), FileLock(_lock_of(scratch), timeout=0):  # TimeoutError: it is held
            shutil.rmtree(scratch, ignore_errors=True)
            _unlink(_lock_of(scratch))
    if target.exists():
        for old in _leftovers(target, "old"):
            shutil.rmtree(old, ignore_errors=True)


def _finish(folder: Path) -> None:
    """Bring all that is in the folder to the disk, files with the modes that new ones get: some writers hide theirs."""
    mask = os.umask(0)
    os.umask(mask)
    for path in [*folder.rglob("*"), folder]:
        if path.is_file():
            path.chmod(0o666 & ~mask)
        _sync(path)


def _take_place(new: Path, target: Path) -> None:
    """Put `new` where `target` stands; what stood there has the name of `new` then, or none."""
    if not (_rename_to_free(new, target) or _exchange(new, target)):
        aside = Path(tempfile.mkdtemp(prefix=_prefix(target, "old"), dir=target.parent))
        target.rename(aside)
        try:
            new.rename(target)
        except OSError:
            with suppress(OSError):
                aside.rename(target)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    _sync(target.parent)


def _rename_to_free(new: Path, target: Path) -> bool:
    """Rename a folder to a name that is free, or that of an empty folder; False where it is taken."""
    try:
        new.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _exchange(first: Path, second: Path) -> bool:
    """Exchange the names of two folders in one step; False where this system cannot."""
    if sys.platform not in _CALLS:
        return False
    name, current = _CALLS[sys.platform]
    call = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if call is None:
        return False
    if call(current, os.fsencode(first), current, os.fsencode(second), ctypes.c_uint(_EXCHANGE)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNABLE:
        return False
    raise OSError(number, os.strerror(number), str(second))


def _sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk, where the system lets it be opened for that."""
    with suppress(OSError) if path.is_dir() else nullcontext():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
