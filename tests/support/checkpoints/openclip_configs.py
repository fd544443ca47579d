"""What tests of `zoo import` share: the usual config of open_clip, with changes, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zoo.transfer.import_config import import_architecture

Json = dict[str, Any]
Import = Callable[..., Json]


def comparable(config: Any) -> Json:
    """Return what the peer's JSON tells of an architecture: no description, no preprocessing, no encoder's config."""
    data = config.data()
    for key in ("description", "preprocess"):
        data.pop(key, None)
    if data["text"]["tower"] == "hf-text":
        data["text"] = {key: value for key, value in data["text"].items() if key not in ("config", "name")}
    return data


MODEL: Json = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
}


def changed(change: Json, base: Json = MODEL) -> Json:
    """Return a config with a change laid over it; None takes a key out."""
    made = dict(base)
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(made.get(key), dict):
            made[key] = changed(value, made[key])
        else:
            made[key] = value
    return made


def importer(folder: Path) -> Import:
    """Return a function that imports open_clip's usual config with a change."""

    def imported(change: Json | None = None) -> Json:
        path = folder / "theirs.json"
        path.write_text(json.dumps(changed(change or {})))
        return import_architecture("open_clip", path)

    return imported
