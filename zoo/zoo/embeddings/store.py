"""Sets of embeddings, each a folder of Parquet files that grows.

    embeddings.json              the model's identity, the width
    part-00000000.parquet ...    id, vector, and size and time of the file that was embedded
    errors-00000000.parquet ...  id, kind, reason and attempts of what has no vector

An input is done if it has a vector of a file of the size and time that it has now. So a killed job repeats the rows
that it had not written yet, a run tries again what failed before, and an image that was replaced is embedded anew. Each
file is whole or not there. Where two parts hold an id, the later one counts, and the other loses that row when the set
is closed or opened next. One process at a time adds to a set.

The id of an image is its absolute path, links in the folders above it resolved, so that a file has one id however it
was named. The id of a caption is the caption. Sets of format 1 keep the ids that they have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from zoo.embeddings.image_folders import file_ids
from zoo.embeddings.manifest import MANIFEST, SetManifest, differences, read_manifest, write_manifest
from zoo.embeddings.parts import PART_NAME, Failure, Part, part_numbers, read_part, write_part
from zoo.embeddings.writers import Writer, parquet_modules, writer
from zoo_core.boundary import checked
from zoo_core.errors import InputError, SaveError
from zoo_core.files.atomic import scratch_target, sweep

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

__all__ = ["EmbeddingSet", "SetContents", "open_output", "open_set", "read_set"]

LOCK = ".lock"
IMAGES, CAPTIONS = "images", "captions"
"""What sets are of; those of files of another modality bear its name."""
OWN_FILES = re.compile(rf"{re.escape(MANIFEST)}|{PART_NAME.pattern}")
SECONDS_PER_PART = 60.0
"""Rows do not wait longer than this for a part to be full: they would be lost with a process that is killed."""


class SetContents(NamedTuple):
    """What a set holds.

    Attributes:
        ids: paths of images or captions, each once.
        vectors: float32 `[N, width]`, one for each id.
        errors: inputs that have no vector, and why.
    """

    ids: list[str]
    vectors: NDArray[float32]
    errors: list[Failure]


@checked
def read_set(folder: str | Path) -> SetContents:
    """Read a set of embeddings, as `zoo embed --out FOLDER` makes it; it may be added to meanwhile.

    Raises:
        ConfigError: its manifest is damaged.
        InputError: the folder is no set, or a part is damaged or of another set; it is named.
        MissingDependencyError: pyarrow is not installed.
    """
    import numpy as np

    folder = Path(folder)
    manifest = read_manifest(folder)
    parts = {number: read_part(folder, number, manifest) for number in part_numbers(folder)}
    _, replaced = _indexed(parts.items(), manifest)
    for number, ids in replaced.items():
        parts[number] = parts[number].without(ids)
    ids = [name for part in parts.values() for name in part.ids]
    errors = [failure for part in parts.values() for failure in part.failures]
    vectors = np.empty((len(ids), manifest.width), np.float32)
    start = 0
    for number in list(parts):  # each goes as it is copied, so that the vectors are never in memory twice
        part = parts.pop(number)
        vectors[start : start + len(part.ids)] = part.vectors
        start += len(part.ids)
    return SetContents(ids, vectors, errors)


class _Entry(NamedTuple):
    """Where an id stands, the file's size and time, and how often it failed; 0 where it has a vector."""

    id: str
    number: int
    size: int | None
    time: int | None
    attempts: int = 0

    def is_of(self, size: int | None, time: int | None) -> bool:
        """Whether a file of this size and time is the one that was embedded; one that is gone may well be."""
        if time is None or self.time is None:
            return True
        return time <= self.time if self.size is None else (size, time) == (self.size, self.time)


class EmbeddingSet(Writer):
    """A set that is open for rows; `open_set` makes it."""

    def __init__(self, folder: Path, manifest: SetManifest, *, rows_per_part: int) -> None:
        super().__init__()
        self.folder = folder
        self._manifest = manifest
        self._rows_per_part = rows_per_part
        self._of_files = manifest.of != CAPTIONS
        self._id = _ids_of(manifest)
        self._stats: dict[str, tuple[int | None, int | None]] = {}
        self._waiting: dict[str, NDArray[float32] | Failure] = {}
        self._since = monotonic()
        numbers = part_numbers(folder)
        self._next = max(numbers, default=-1) + 1
        parts = ((number, read_part(folder, number, manifest)) for number in numbers)
        self._entries, self._replaced = _indexed(parts, manifest)
        self._drop_replaced()

    def remaining(self, items: Sequence[str]) -> list[str]:
        """Return what has no vector yet, failed before, or is another file than was embedded; each once."""
        named: dict[str, str] = {}
        for item in items:
            named.setdefault(self._id(item), item)
        remaining: list[str] = []
        for name, item in named.items():
            size, time = self._stat(item)
            entry = self._entries.get(name)
            has_vector = entry is not None and not entry.attempts
            if entry is not None and has_vector and entry.is_of(size, time):
                self.kept += 1
                self.gone += self._of_files and time is None
                continue
            self.changed += has_vector
            self._stats[name] = size, time
            remaining.append(item)
        self.failed_before = sum(entry.attempts > 0 for name, entry in self._entries.items() if name not in named)
        return remaining

    def refuse(self, name: str, error: Exception) -> None:
        """Take note of the reason why an input has no vector."""
        super().refuse(name, error)
        item, name = name, self._id(name)
        before = self._entries.get(name)
        self._take(name, item, Failure(name, _kind(error), str(error), 1 + (before.attempts if before else 0)))

    def close(self) -> None:
        """Write the rows that wait, and drop those that they replace."""
        self.flush()
        self._drop_replaced()

    def flush(self) -> None:
        """Write the rows that wait as one part.

        Raises:
            SaveError: it cannot be written; the parts before are whole.
        """
        import numpy as np

        if not self._waiting:
            return
        failures = [row for row in self._waiting.values() if isinstance(row, Failure)]
        vectors = {name: row for name, row in self._waiting.items() if not isinstance(row, Failure)}
        stats = [self._stats[name] for name in vectors]
        rows = np.stack(list(vectors.values())) if vectors else np.empty((0, self._manifest.width), np.float32)
        part = Part(list(vectors), rows, [size for size, _ in stats], [time for _, time in stats], failures)
        write_part(self.folder, self._next, part, self._manifest.identity)
        _index_part(self._entries, self._replaced, self._next, part, self._id)
        self._next += 1
        for name in self._waiting:
            del self._stats[name]
        self._waiting = {}

    def _write(self, ids: Sequence[str], rows: NDArray[float32]) -> None:
        for item, row in zip(ids, rows, strict=True):
            self._take(self._id(item), item, row)

    def _take(self, name: str, item: str, row: NDArray[float32] | Failure) -> None:
        if not self._waiting:
            self._since = monotonic()
        self._stats.setdefault(name, self._stat(item))
        self._waiting[name] = row
        if len(self._waiting) >= self._rows_per_part or monotonic() - self._since >= SECONDS_PER_PART:
            self.flush()

    def _stat(self, item: str) -> tuple[int | None, int | None]:
        """Return size and time of a file before it is read: one that changes meanwhile is embedded again next time."""
        try:
            stat = Path(item).stat() if self._of_files else None
        except (OSError, ValueError):
            stat = None
        return (stat.st_size, stat.st_mtime_ns) if stat else (None, None)

    def _drop_replaced(self) -> None:
        """Write parts anew without the rows that a later part replaced."""
        for number, ids in sorted(self._replaced.items()):
            part = read_part(self.folder, number, self._manifest).without(ids)
            write_part(self.folder, number, part, self._manifest.identity)
        self._replaced.clear()


@contextmanager
def open_set(
    folder: Path,
    width: int,
    identity: dict[str, str],
    *,
    of_files: bool = True,
    modality: str = "image",
    rows_per_part: int = 4096,
) -> Generator[EmbeddingSet]:
    """Open a set for rows, or make one. Rows that wait are written when the block ends, also by an error.

    Args:
        folder: where; made if it is not there.
        width: of an embedding.
        identity: what tells this model, its preprocessing and its dtype from others.
        of_files: ids are paths of files, not captions.
        modality: what the files hold.
        rows_per_part: rows of a part.

    Raises:
        ConfigError: the manifest is damaged.
        InputError: another model made the set, it is one of captions and not of images or the other way round, a part
            is damaged, the folder holds something else, or another process adds to it.
        MissingDependencyError: pyarrow is not installed.
        SaveError: a file cannot be written.
    """
    parquet_modules()
    of = CAPTIONS if not of_files else IMAGES if modality == "image" else modality
    manifest = SetManifest(of=of, width=width, identity=identity)
    has_manifest = (folder / MANIFEST).is_file()
    if folder.exists() and not has_manifest and not (folder.is_dir() and all(map(_is_begun, folder.iterdir()))):
        raise InputError(f"{folder} exists and is no set of embeddings; choose another folder")
    with _locked(folder):
        sweep(folder, OWN_FILES, alone=True)
        before = read_manifest(folder) if (folder / MANIFEST).is_file() else None
        if before is not None:
            _expect_same(folder, before, manifest)
        if before is None or before.format != manifest.format:
            write_manifest(folder, manifest)
        opened = EmbeddingSet(folder, manifest, rows_per_part=rows_per_part)
        try:
            yield opened
        finally:
            opened.close()


def open_output(
    out: Path, width: int, identity: dict[str, str], *, of_files: bool = True, modality: str = "image"
) -> AbstractContextManager[Writer]:
    """Open what embeddings are written to: a file that ends in one of `FORMATS`, or a set in a folder.

    The arguments and errors are those of `open_set` and of `zoo.embeddings.writers.writer`.
    """
    if out.suffix:
        return writer(out, width, identity)
    return open_set(out, width, identity, of_files=of_files, modality=modality)


def _ids_of(manifest: SetManifest) -> Callable[[str], str]:
    return str if manifest.of == CAPTIONS else file_ids()


def _indexed(parts: Iterable[tuple[int, Part]], manifest: SetManifest) -> tuple[dict[str, _Entry], dict[int, set[str]]]:
    """Return where each id stands, and the ids of each part that a later one replaced.

    A part of format 1 that has failures is among those, for it is to be written anew in any case.
    """
    entries: dict[str, _Entry] = {}
    replaced: dict[int, set[str]] = {}
    id_of = _ids_of(manifest)
    for number, part in parts:
        _index_part(entries, replaced, number, part, id_of)
        if part.is_old and part.failures:
            replaced.setdefault(number, set())
    return entries, replaced


def _index_part(
    entries: dict[str, _Entry], replaced: dict[int, set[str]], number: int, part: Part, id_of: Callable[[str], str]
) -> None:
    """Add the ids of a part to the index; those that an earlier part holds too are replaced there."""
    rows = [
        _Entry(row_id, number, size, part.written if time is None else time)
        for row_id, size, time in zip(part.ids, part.sizes, part.times, strict=True)
    ]
    failures = [_Entry(failure.id, number, None, None, failure.attempts) for failure in part.failures]
    for entry in (*rows, *failures):
        name = id_of(entry.id)
        before = entries.get(name)
        if before is not None:
            replaced.setdefault(before.number, set()).add(before.id)
        entries[name] = entry


def _kind(error: BaseException) -> str:
    """Return the kind of a failure, by the error of the system that is behind it, if any."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno:
            return "missing" if isinstance(cause, FileNotFoundError) else "unreadable"
        cause = cause.__cause__ or cause.__context__
    return "invalid"


def _expect_same(folder: Path, before: SetManifest, manifest: SetManifest) -> None:
    """Refuse a set of other inputs, another width or another model."""
    different: list[str] = []
    if before.of != manifest.of:
        different.append(f"they are of {before.of}, here of {manifest.of}")
    if before.width != manifest.width:
        different.append(f"width is {before.width}, here {manifest.width}")
    facts = differences(before.identity, manifest.identity, folder / MANIFEST)
    different += [facts] if facts else []
    if different:
        raise InputError(
            f"{folder} holds embeddings that are not comparable with these: {'; '.join(different)}. "
            "Choose another folder"
        )


def _is_begun(path: Path) -> bool:
    """Whether a file may lie in a folder that is to become a set, of a process that was killed while it made it."""
    return path.name == LOCK or scratch_target(path) == MANIFEST


@contextmanager
def _locked(folder: Path) -> Generator[None]:
    """Hold the lock of a set; the system takes it from a process that dies."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise InputError(f"another process adds to {folder} right now; wait for it to end") from None
    except OSError as error:
        raise SaveError(f"{folder} cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()
