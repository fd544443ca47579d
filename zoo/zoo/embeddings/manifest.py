"""The manifest of a set of embeddings, `embeddings.json`.

It says what the vectors are of, and which model made them. Vectors are comparable where what makes them is the same:
weights, architecture, preprocessing, dtype, version. Where the model came from, and how it is described, is written
down and does not matter.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field

from zoo_core.config import Config
from zoo_core.documents.json_reader import parse_json, read_json
from zoo_core.errors import InputError, describe
from zoo_core.files.atomic import atomic_write

__all__ = ["MANIFEST", "SetManifest", "differences", "read_manifest", "write_manifest"]

MANIFEST = "embeddings.json"
IRRELEVANT = ("zoo.model", "zoo.pretrained", "description", "max_parameters")
"""Facts about a model that do not change its vectors."""

SAME_VECTORS = {"0.2.0": "0.1.0"}
"""Versions of zoo, each with the first one that gives the same vectors of the same config and weights."""


class SetManifest(Config):
    """What `embeddings.json` holds."""

    format: Literal[1, 2] = 2
    """2 where failures stand in files of their own; 1 where they stand among the vectors, as a vector that is null."""
    of: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """What an id is: the path of one of `images`, one of `captions`, or the path of a file of another modality."""
    width: Annotated[int, Field(ge=1)]
    """Width of a vector."""
    identity: dict[str, str]
    """What tells the model from others, as `zoo.embeddings.encode.identity` gives it."""


def read_manifest(folder: Path) -> SetManifest:
    """Return the manifest of a set.

    Raises:
        ConfigError: it is damaged; file and key are named.
        InputError: the folder has none.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder} is no set of embeddings: it has no {MANIFEST}")
    return SetManifest.from_document(read_json(path))


def write_manifest(folder: Path, manifest: SetManifest) -> None:
    """Write the manifest of a set, which makes a folder one.

    Raises:
        SaveError: it cannot be written.
    """
    with atomic_write(folder / MANIFEST) as (scratch,):
        scratch.write_text(json.dumps(manifest.data(), indent=1) + "\n", encoding="utf-8")


def differences(theirs: Mapping[str, str], ours: Mapping[str, str], source: Path) -> str:
    """Return in which facts two identities differ that make vectors what they are; nothing where in none.

    Args:
        theirs: the identity that `source` holds.
        ours: the one that it is compared with.
        source: the file, for errors.
    """
    if theirs == ours:
        return ""
    facts, expected = _facts(theirs, str(source)), _facts(ours, str(source))
    differing = sorted(key for key in facts.keys() | expected.keys() if facts.get(key) != expected.get(key))
    versions = [identity.get("zoo.version", "") for identity in (theirs, ours)]
    if len({SAME_VECTORS.get(version, version) for version in versions}) == 1:
        differing = [key for key in differing if key != "zoo.version"]
    return "; ".join(f"{key} is {_short(facts.get(key))}, here {_short(expected.get(key))}" for key in differing)


def _facts(identity: Mapping[str, str], source: str) -> dict[str, Any]:
    """Return what has to be the same for vectors to be comparable, the architecture key by key."""
    config = parse_json(identity.get("zoo.config", "{}"), f"{source}: identity.zoo.config").data
    facts = {**identity, **dict(_leaves(config))}
    return {key: value for key, value in facts.items() if key not in (*IRRELEVANT, "zoo.config")}


def _leaves(section: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _leaves(cast("dict[str, Any]", value), f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _short(value: object) -> str:
    return describe(value, 40).strip("'")
