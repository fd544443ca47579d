"""Digests of the files of a saved model, and reading of `zoo.json`.

The README is no part of it: people may write in it. Sizes are looked at on every load, small files are read whole, and
weights are read for their digest only where that is asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from zoo.saved.origin import FORMAT, Origin
from zoo_core.documents import Bounds
from zoo_core.documents.json_reader import read_json
from zoo_core.errors import CheckpointError, ConfigError, describe
from zoo_core.files.hashing import sha256_of

__all__ = ["ORIGIN", "differing_files", "digest_of", "file_digests", "read_origin"]

ORIGIN = "zoo.json"
SMALL = 32 * 2**20
"""Files of up to so many bytes are read on every load."""
BOUNDS = Bounds(bytes=4 * 2**20, depth=8, values=400_000)
"""What `zoo.json` may hold."""
_UNCOUNTED = (ORIGIN, "README.md")


def file_digests(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of every file of a folder, by its path with forward slashes."""
    return {name: {"size": path.stat().st_size, "sha256": sha256_of(path)} for name, path in _files(folder)}


def digest_of(origin: Mapping[str, Any]) -> str:
    """Return the SHA-256 over everything that `zoo.json` says but that digest itself."""
    covered = {key: value for key, value in origin.items() if key != "digest"}
    return hashlib.sha256(json.dumps(covered, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_origin(folder: Path) -> Origin:
    """Return what `zoo.json` says.

    Raises:
        CheckpointError: it is missing, damaged, or was written by a zoo of another format.
    """
    path = folder / ORIGIN
    try:
        document = read_json(path, BOUNDS)
        if document.data.get("format") != FORMAT:
            problem = f"expected format {FORMAT}, found {describe(document.data.get('format'))}"
            raise ConfigError(document.mark(("format",)).problem(problem, "format"))
        if document.data.get("digest") != digest_of(document.data):
            raise CheckpointError(f"{path} was changed since the model was saved: its digest is another")
        return Origin.from_document(document)
    except ConfigError as error:
        problems = "; ".join(str(error).splitlines())
        raise CheckpointError(f"{problems}; save the model again, or get its folder anew") from None


def differing_files(folder: Path, origin: Origin, *, all_bytes: bool) -> dict[str, str]:
    """Return what is wrong with each file that is not as it was saved.

    Args:
        folder: a saved model.
        origin: what its `zoo.json` says.
        all_bytes: read large files too; else only their sizes are looked at.
    """
    expected = origin.files
    wrong: dict[str, str] = {}
    for name, saved in expected.items():
        path = folder / name
        if not path.is_file():
            wrong[name] = "is missing"
            continue
        size = path.stat().st_size
        if size != saved.size:
            wrong[name] = f"has {size} bytes, but {saved.size} were saved"
        elif (all_bytes or size <= SMALL) and sha256_of(path) != saved.sha256:
            wrong[name] = f"holds other bytes than were saved, whose sha256 is {saved.sha256}"
    folders = {Path(name).parent for name in expected} - {Path()}
    for name, path in _files(folder):  # the readers of a tokenizer take whatever lies beside its files
        if name not in expected and path.relative_to(folder).parent in folders:
            wrong[name] = "was not there when the model was saved"
    return wrong


def _files(folder: Path) -> Iterable[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in _UNCOUNTED:
            yield name, path
