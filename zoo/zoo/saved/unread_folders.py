"""Advice about folders that hold no model that zoo reads."""

from __future__ import annotations

from pathlib import Path

from zoo.checkpoints.open import checkpoint_formats, read_foreign_config
from zoo.saved.read import is_saved_model
from zoo_core.documents import ENCODER_CONFIG
from zoo_core.documents.json_reader import read_json
from zoo_core.errors import ConfigError, describe

__all__ = ["folders_with_models", "why_unread"]

CONFIG = "config.json"


def why_unread(folder: Path) -> str:
    """Return what a folder holds in place of a model, in words to go on with; nothing where that cannot be told.

    sentence-transformers has the folder of transformers below `0_CLIPModel`, diffusers its text encoder in one.
    """
    inner = folders_with_models(folder)
    if inner:
        return f"; the model is in its folder {inner[0]}: zoo.build({str(folder / inner[0])!r})"
    try:
        path = folder / CONFIG
        model_type = read_json(path, ENCODER_CONFIG).data.get("model_type") if path.is_file() else None
    except ConfigError as error:
        return f"; {error}"
    if model_type is None:
        return ""
    read = ", ".join(kind for _, format in checkpoint_formats() for kind in format.model_types)
    return f"; its {CONFIG} has model_type: {describe(model_type)}, which no installed plugin reads (read are {read})"


def folders_with_models(folder: Path) -> list[str]:
    """Return the names of the folders in a folder that hold a model, of zoo or of another library."""
    names: list[str] = []
    for path in sorted(folder.iterdir()):
        try:
            holds_model = path.is_dir() and (is_saved_model(path) or read_foreign_config(path) is not None)
        except ConfigError:  # one that cannot be built, which is said when it is tried
            holds_model = True
        if holds_model:
            names.append(path.name)
    return names
