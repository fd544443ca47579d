"""Comparison of recipes: what a run may change when it goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from zoo.training.recipe.recipe import Recipe
from zoo_core.documents.json_reader import read_json
from zoo_core.errors import ConfigError, InputError, describe
from zoo_core.files.atomic import atomic_write

__all__ = ["RECIPE", "expect_same_recipe", "recipe_digest", "write_recipe"]

RECIPE = "recipe.json"
FREE = ("parallel", "evaluate", "keep", "log", "stop", "data.workers", "data.prefetch", "data.validation")
"""Keys that do not change the weights of a run, beyond the rounding of another number of processes."""
MOST = 5
"""So many differences are named."""


def recipe_digest(recipe: Recipe) -> str:
    """Return the SHA-256 of all that decides the weights of a run."""
    deciding = {key: value for key, value in _leaves(recipe.data()) if not _is_free(key)}
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Write the recipe of a run into its folder.

    Raises:
        SaveError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / RECIPE) as (scratch,):
        scratch.write_text(json.dumps(recipe.data(), indent=2) + "\n", encoding="utf-8")


def expect_same_recipe(folder: Path, recipe: Recipe) -> None:
    """Refuse to go on in a folder with a recipe that would have given other weights.

    Raises:
        ConfigError: the recipe in the folder is damaged.
        InputError: the two differ in what decides the weights; the keys are named with both values.
    """
    path = folder / RECIPE
    if not path.is_file():
        return
    try:
        before = Recipe.from_document(read_json(path)).data()
    except ConfigError as error:
        raise ConfigError(f"{path} is no recipe of this version: {error}") from error
    theirs, ours = dict(_leaves(before)), dict(_leaves(recipe.data()))
    keys = [key for key in {**theirs, **ours} if not _is_free(key) and theirs.get(key) != ours.get(key)]
    if keys:
        listed = [f"{key} is {describe(theirs.get(key))} there, {describe(ours.get(key))} here" for key in keys[:MOST]]
        more = [f"and {len(keys) - MOST} more"] if len(keys) > MOST else []
        raise InputError(
            f"{folder} holds a run of another recipe: {'; '.join(listed + more)}. Choose another --out, and give "
            f"--resume and a checkpoint of it to go on from there"
        )


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in FREE)


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value that is no mapping with the keys that lead to it."""
    if isinstance(value, Mapping) and value:
        for name, inner in cast("Mapping[str, Any]", value).items():
            yield from _leaves(inner, f"{key}.{name}" if key else name)
    else:
        yield key, value
