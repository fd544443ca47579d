"""Pretrained models as folders that need no network."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.building.build import build_source
from zoo.building.source import Source, resolve
from zoo.catalog.pretrained import entries_of, licence_for_people
from zoo.hub.address import PREFIX, parse_address
from zoo.hub.weights import fetch_weights
from zoo.saved.manifest import ORIGIN
from zoo.saved.read import README, SavedModel, open_saved
from zoo.saved.write import expect_room, write_folder
from zoo_core.boundary import checked
from zoo_core.errors import InputError, one_of
from zoo_core.files.atomic_folder import atomic_folder

__all__ = ["pull"]


@checked
def pull(source: str, to: str | Path) -> Path:
    """Write a folder that holds all of a model: weights, architecture, preprocessing and tokenizer.

    `zoo.build(folder)` then asks nobody for anything, on this machine or on another. Every byte of the weights is
    compared with its digest on the way.

    Args:
        source: `"name:tag"`, or the name alone of an architecture with a single tag (see `zoo info`); or
            `"hf-hub:organisation/name[@revision]"`, a repository that holds a saved model, or one of another library.
        to: the folder; a saved model that is there is replaced.

    Returns:
        the folder.

    Raises:
        InputError: the tag is missing, and there are several or none.
        UnknownNameError: no such architecture or tag.
        DownloadError: a file of the Hub cannot be had, or has other bytes than it should.
        ConfigError: the files of the tokenizer cannot be had.
        SaveError: the folder holds something else than a saved model, or cannot be written.
    """
    resolved = resolve(source)
    if resolved.saved is not None:
        return _copied(resolved.saved, Path(to))
    if resolved.kind == "name" and resolved.tag is None:
        tags = entries_of(source)
        if len(tags) != 1:
            choices = f" ({one_of(tags)})" if tags else ""
            raise InputError(f"'{source}' has {len(tags)} pretrained tags; write {source}:TAG{choices}")
        resolved = replace(resolved, tag=next(iter(tags)))
    if not resolved.has_weights:
        raise InputError(f"'{source}' is an architecture without weights; build and save it: zoo.save")
    origin = _origin(resolved)
    return write_folder(build_source(resolved), Path(to), complete=True, source=origin)


def _origin(source: Source) -> dict[str, Any] | None:
    """Return where weights come from, once they are here and were compared with their digest."""
    if source.folder is not None:
        if not str(source.argument).startswith(PREFIX):
            return None
        return {"repo": parse_address(source.argument)[0], "commit": source.folder.name}
    origin: dict[str, Any] = {"architecture": source.argument, "tag": source.tag}
    if source.entry is None:
        return origin
    origin["license"] = licence_for_people(source.entry.license, source.entry.terms)
    if source.entry.hub is None:
        return origin
    file = fetch_weights(source.entry.hub, source.entry.sha256, verify=True)
    return origin | {"repo": file.repo, "file": file.name, "commit": file.commit, "sha256": file.sha256}


def _copied(saved: SavedModel, target: Path) -> Path:
    """Copy a saved model out of the cache, where links stand for files, and compare the copy with its digests."""
    expect_room(target)
    with atomic_folder(target) as scratch:
        for name in (*saved.manifest.files, ORIGIN, README):
            if (saved.folder / name).is_file():
                (scratch / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(saved.folder / name, scratch / name)
        open_saved(scratch).check_files(all_bytes=True)
    return target
