"""A tiny model for the program `zoo`, and the program in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import zoo

Run = Callable[..., tuple[int, str, str]]
"""Runs `zoo` in this process; returns exit status, standard output and standard error."""

TINY: dict[str, Any] = {
    "model": "clip",
    "embed_dim": 16,
    "vision": {"tower": "vit", "image_size": 16, "patch_size": 8, "width": 32, "head_width": 16, "layers": 1},
    "text": {
        "tower": "clip-transformer",
        "context_length": 16,
        "vocab_size": 600,
        "width": 16,
        "heads": 1,
        "layers": 1,
    },
    "tokenizer": {"type": "clip-bpe", "vocab_size": 600},
    "preprocess": {"type": "image"},
}


def save_tiny(folder: Path, **changes: Any) -> Path:
    torch.manual_seed(0)
    return zoo.save(zoo.build({**TINY, **changes}), folder)


def program(
    *arguments: str, code: str | None = None, path: Path | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run `zoo` (or `code`) in a process of its own that also sees the distributions below `path`."""
    seen = [*([str(path)] if path else []), *(one for one in sys.path if one)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(seen), **options.pop("env", {})}
    code = code or "import sys; from zoo.cli.app import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        text=True,
        **({"capture_output": True} | options),
    )
