"""Sets of embeddings: a folder of Parquet files that grows, goes on after a kill, and knows which model made it.

    embeddings.json            the model's identity, the width, the columns
    part-00000000.parquet ...  rows (id, path, vector, error), each file whole or not there

What was embedded is what stands in a part: a killed job repeats the rows that it had not written yet, and no others. A
row holds a vector, or the reason why there is none. One process at a time adds to a set.

Sets are told apart by what makes a vector: weights, architecture, preprocessing, dtype, version. Where the model came
from, and what is said of it, is recorded in the manifest and in each part, and does not matter.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from zoo.embedding_files import Writer, parquet_modules, writer
from zoo.whole_files import replacing
from zoo_core.errors import InputError, SaveError

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

__all__ = ["EmbeddingSet", "open_output", "open_set"]

MANIFEST = "embeddings.json"
LOCK = ".lock"
PARTS = "part-*.parquet"
FORMAT = 1
SECONDS_PER_PART = 60.0
"""Rows do not wait longer than this for a part to be full: they would be lost with a process that is killed."""
IRRELEVANT = ("zoo.model", "zoo.pretrained", "description", "max_parameters")
"""Facts about a model that do not change its vectors."""


class EmbeddingSet(Writer):
    """A set that is open for rows; `open_set` makes it."""

    def __init__(
        self, folder: Path, width: int, identity: dict[str, str], *, of_files: bool, rows_per_part: int
    ) -> None:
        super().__init__()
        arrow, parquet = parquet_modules()
        vector = arrow.list_(arrow.float32(), width)
        columns = {"id": arrow.string(), "path": arrow.string(), "vector": vector, "error": arrow.string()}
        self.folder = folder
        self._schema = arrow.schema(list(columns.items()), metadata=identity)
        self._of_files = of_files
        self._rows_per_part = rows_per_part
        self._waiting: list[dict[str, Any]] = []
        self._since = monotonic()
        self._parts = 0
        for path in sorted(folder.glob(PARTS)):
            try:
                self.done.update(parquet.read_table(path, columns=["id"]).column("id").to_pylist())
            except Exception as error:  # whatever pyarrow raises for a damaged file
                raise InputError(f"{path} is damaged: {error}; remove it, and its rows are embedded again") from error
            self._parts = int(path.stem.removeprefix("part-")) + 1

    def refuse(self, name: str, error: Exception) -> None:
        """Add a row that holds the reason instead of a vector."""
        super().refuse(name, error)
        self._take(name, None, str(error))

    def close(self) -> None:
        """Write the rows that wait."""
        self.flush()

    def flush(self) -> None:
        """Write the rows that wait as one part.

        Raises:
            SaveError: it cannot be written; the parts before are whole.
        """
        if not self._waiting:
            return
        arrow, parquet = parquet_modules()
        table = arrow.Table.from_pylist(self._waiting, schema=self._schema)
        with replacing(self.folder / f"part-{self._parts:08}.parquet") as (scratch,):
            parquet.write_table(table, scratch)
        self._parts += 1
        self._waiting = []

    def _write(self, ids: Sequence[str], rows: NDArray[float32]) -> None:
        for name, row in zip(ids, rows, strict=True):
            self._take(name, row, None)

    def _take(self, name: str, vector: NDArray[float32] | None, error: str | None) -> None:
        path = name if self._of_files else None
        if not self._waiting:
            self._since = monotonic()
        self._waiting.append({"id": name, "path": path, "vector": vector, "error": error})
        if len(self._waiting) >= self._rows_per_part or monotonic() - self._since >= SECONDS_PER_PART:
            self.flush()


@contextmanager
def open_set(
    folder: Path, width: int, identity: dict[str, str], *, of_files: bool = True, rows_per_part: int = 4096
) -> Generator[EmbeddingSet]:
    """Open a set for rows, or make one. Rows that wait are written when the block ends, also by an error.

    Args:
        folder: where; made if it is not there.
        width: of an embedding.
        identity: what tells this model, its preprocessing and its dtype from others.
        of_files: ids are paths of files, not captions.
        rows_per_part: rows of a part.

    Raises:
        InputError: another model made the set, it is one of captions and not of images or the other way round, the
            folder holds something else, or another process adds to it.
        MissingDependencyError: pyarrow is not installed.
        SaveError: a file cannot be written.
    """
    parquet_modules()
    manifest = folder / MANIFEST
    if folder.exists() and not manifest.is_file() and any(one.name != LOCK for one in folder.iterdir()):
        raise InputError(f"{folder} exists and is no set of embeddings; choose another folder")
    with _only_one(folder):
        for torn in folder.glob(".*.tmp"):  # of a process that was killed
            torn.unlink(missing_ok=True)
        of = "images" if of_files else "captions"
        wanted = {"format": FORMAT, "of": of, "width": width, "identity": identity}
        if manifest.is_file():
            _expect_same(manifest, wanted)
        else:
            with replacing(manifest) as (scratch,):
                scratch.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
        made = EmbeddingSet(folder, width, identity, of_files=of_files, rows_per_part=rows_per_part)
        try:
            yield made
        finally:
            made.close()


def open_output(
    out: Path, width: int, identity: dict[str, str], *, of_files: bool = True
) -> AbstractContextManager[Writer]:
    """Open what embeddings are written to: a file that ends in one of `FORMATS`, or a set in a folder.

    The arguments and errors are those of `open_set` and of `zoo.embedding_files.writer`.
    """
    return writer(out, width, identity) if out.suffix else open_set(out, width, identity, of_files=of_files)


def _expect_same(manifest: Path, wanted: dict[str, Any]) -> None:
    try:
        theirs = _facts(json.loads(manifest.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{manifest} is damaged: {type(error).__name__}: {error}") from error
    ours = _facts(wanted)
    differing = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    if differing:
        told = "; ".join(f"{key} is {_short(theirs.get(key))}, here {_short(ours.get(key))}" for key in differing)
        raise InputError(
            f"{manifest.parent} holds embeddings that are not comparable with these: {told}. Choose another folder"
        )


def _facts(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return what has to be the same for vectors to be comparable, the architecture key by key."""
    identity: dict[str, Any] = dict(manifest["identity"])
    config = dict(_leaves(json.loads(identity.pop("zoo.config", "{}"))))
    facts = {**identity, **config, **{key: manifest[key] for key in ("format", "width")}, "of": manifest.get("of")}
    return {key: value for key, value in facts.items() if key not in IRRELEVANT}


def _leaves(section: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _leaves(cast("dict[str, Any]", value), f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


@contextmanager
def _only_one(folder: Path) -> Generator[None]:
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
