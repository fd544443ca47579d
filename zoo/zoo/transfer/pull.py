"""Models that need no network: pretrained weights, or a repository of the Hub, as one saved folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from zoo.building.source import locate
from zoo.catalog.pretrained import entries_of, licence_for_people
from zoo.hub.address import PREFIX, parse_address
from zoo.hub.weights import fetch_weights
from zoo.saved.manifest import ORIGIN, read_origin
from zoo.saved.read import README, is_folder, open_folder
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
    import zoo

    if source.startswith(PREFIX):
        folder = locate(source)
        if is_folder(folder):
            return _copied(folder, Path(to))
        facts = {"repo": parse_address(source)[0], "commit": folder.name}
        return write_folder(zoo.build(source), Path(to), complete=True, source=facts)
    name, tag = _split(source)
    facts = _facts(name, tag)
    return write_folder(zoo.build(name, pretrained=tag), Path(to), complete=True, source=facts)


def _split(source: str) -> tuple[str, str]:
    """Return architecture and tag of `name:tag`."""
    name, colon, tag = source.partition(":")
    if colon:
        return name, tag
    tags = entries_of(name)
    if len(tags) != 1:
        raise InputError(
            f"'{name}' has {len(tags)} pretrained tags; write {name}:TAG" + (f" ({one_of(tags)})" if tags else "")
        )
    return name, next(iter(tags))


def _facts(name: str, tag: str) -> dict[str, Any]:
    """Return where weights come from, once they are here and were compared with their digest."""
    from zoo.building.pretrained import resolve_tag

    entry = resolve_tag(name, tag)
    facts: dict[str, Any] = {"architecture": name, "tag": tag}
    if entry is None:
        return facts
    facts["license"] = licence_for_people(entry.license, entry.terms)
    if entry.hub is None:
        return facts
    found = fetch_weights(entry.hub, entry.sha256, verify=True)
    return facts | {"repo": found.repo, "file": found.name, "commit": found.commit, "sha256": found.sha256}


def _copied(folder: Path, target: Path) -> Path:
    """Copy a saved model out of the cache, where links stand for files, and compare the copy with its digests."""
    expect_room(target)
    with atomic_folder(target) as scratch:
        for name in (*read_origin(folder).files, ORIGIN, README):
            if (folder / name).is_file():
                (scratch / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, scratch / name)
        open_folder(scratch, all_bytes=True)
    return target
