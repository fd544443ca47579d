"""Finding of files by patterns, and what is near where nothing matches."""

from __future__ import annotations

import difflib
import glob
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from zoo_core.errors import DataError

__all__ = ["expand_braces", "find_files", "near_names", "read_bytes"]

_BRACES = re.compile(r"\{([^{}]*)\}")


def find_files(patterns: Sequence[str]) -> list[Path]:
    """Return the files that patterns name, each once, those of a pattern in the order of their names.

    Raises:
        DataError: a pattern matches nothing; what is near is named. Or a file is named twice.
    """
    files: list[Path] = []
    for pattern in patterns:
        for path in expand_braces(str(Path(pattern).expanduser())):
            matches = [path] if Path(path).exists() else sorted(glob.glob(path, recursive=True))  # noqa: PTH207
            if not matches:
                raise DataError(f"no file matches '{path}'{near_names(path)}")
            files += map(Path, matches)
    twice = [path for path, count in Counter(files).items() if count > 1]
    if twice:
        raise DataError(f"path names {twice[0]} twice; its samples would count double")
    return files


def expand_braces(pattern: str) -> Iterator[str]:
    """Yield what a pattern stands for: `{a,b}` for each, `{08..11}` for each number of as many digits."""
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    span = re.fullmatch(r"(\d+)\.\.(\d+)", match[1])
    if span is None:
        choices: Sequence[str] = match[1].split(",")
    else:
        choices = [str(number).zfill(len(span[1])) for number in range(int(span[1]), int(span[2]) + 1)]
    for choice in choices:
        yield from expand_braces(pattern[: match.start()] + choice + pattern[match.end() :])


def near_names(path: str) -> str:
    """Return what there is in place of a path, as the end of a message."""
    missing, parent = "", Path(path)
    while not parent.is_dir() and parent != parent.parent:
        missing, parent = parent.name, parent.parent
    names = sorted(entry.name for entry in parent.iterdir())
    near = difflib.get_close_matches(missing, names, n=1, cutoff=0.5)
    if near and near[0] != missing:
        return f", did you mean '{parent / near[0]}'?"
    endings = Counter(Path(name).suffix or "no ending" for name in names).most_common(4)
    listed = ", ".join(f"{count} of {ending}" for ending, count in endings)
    return f"; the folder {parent} holds {f'files: {listed}' if names else 'nothing'}"


def read_bytes(path: Path) -> bytes:
    """Return what a file holds.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
