"""Reading of recipes: YAML, `extends`, overrides and references, as architectures are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from zoo.catalog.architectures import registry
from zoo.catalog.recipes import find_recipe
from zoo.training.recipe.recipe import Recipe
from zoo_core.config.messages import placed
from zoo_core.documents import Document, Mark
from zoo_core.documents.extends import ExtendingReader, is_path
from zoo_core.documents.interpolation import interpolate
from zoo_core.documents.mapping_reader import read_mapping
from zoo_core.documents.merge import merge
from zoo_core.documents.overrides import read_overrides
from zoo_core.errors import ConfigError

__all__ = ["read_recipe"]


def read_recipe(source: str | Path | Mapping[str, Any] | Recipe, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe that a source states.

    Args:
        source: the name of a recipe that ships with zoo or a plugin, a YAML file, a mapping, or a recipe.
        overrides: `"key.path=value"`, applied last; values are read as YAML.

    Raises:
        ConfigError: with every problem found, each with its file and line.
        UnknownNameError: no such recipe; the nearest one is named.
    """
    reader = ExtendingReader("a recipe", find_recipe)
    if isinstance(source, Recipe):
        document = Document(source.data(), {(): Mark("recipe")})
    elif isinstance(source, Mapping):
        document = reader.extended(read_mapping(source))
    elif is_path(source):
        document = reader.read(Path(source))
    else:
        document = reader.read(*find_recipe(str(source)))
    for override in read_overrides(overrides):
        document = merge(document, override)
    problems = list(interpolate(document))
    if problems:
        raise ConfigError(problems)
    try:
        return Recipe.model_validate(document.data, context={"registry": registry()})
    except ValidationError as error:
        raise ConfigError(placed(error, document)) from None
