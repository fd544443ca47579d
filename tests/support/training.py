"""Tiny runs: pictures with captions in a folder, and a recipe that trains on them in a second."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from support.command_line import TINY

COLOURS = ("red", "green", "blue", "olive", "teal")
SHAPES = ("disc", "ring", "box", "line")


def write_pairs(folder: Path, count: int = 24) -> Path:
    """Write images with captions beside them; no two are the same."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        image = Image.new("RGB", (18 + index % 3, 16), COLOURS[index % len(COLOURS)])
        image.putpixel((index % 16, index // 16), (index, 255, 255))
        image.save(folder / f"{index:03}.png")
        caption = f"a {COLOURS[index % len(COLOURS)]} {SHAPES[index % len(SHAPES)]} {index}"
        (folder / f"{index:03}.txt").write_text(caption, encoding="utf-8")
    return folder


def tiny_recipe(pairs: Path, **changes: Any) -> dict[str, Any]:
    """A recipe of six steps over a folder of pairs; sections that are given replace these."""
    recipe: dict[str, Any] = {
        "model": TINY,
        "data": {"train": {"type": "folder", "path": str(pairs)}, "workers": 0},
        "batch": {"size": 4},
        "optimizer": {"type": "adamw", "lr": 1e-3},
        "schedule": {"type": "cosine", "steps": 6, "warmup": 2},
        "keep": {"steps": 2},
        "log": {"every": 1},
    }
    return {key: value for key, value in {**recipe, **changes}.items() if value is not None}


def write_recipe(path: Path, recipe: dict[str, Any]) -> Path:
    """Write a recipe as YAML."""
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


def weights_digest(run: Path) -> str:
    """Return the SHA-256 of all parameters of the model that a run ended in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(run / "model" / "model.safetensors").items()):
        digest.update(name.encode() + tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def records(run: Path) -> list[dict[str, Any]]:
    """Return the lines of the record of a run."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
