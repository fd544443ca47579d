"""Sound files of every container, and a reader of damaged ones."""

from __future__ import annotations

import io
from pathlib import Path

import numpy
import torch
from safetensors.torch import save

from zoo.checkpoints.containers import open_container
from zoo_core.errors import ZooError

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3).half(), "n": torch.tensor(3)}


def packed(**options: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": TENSORS}, buffer, **options)
    return buffer.getvalue()


def arrays() -> bytes:
    buffer = io.BytesIO()
    numpy.savez_compressed(buffer, **{key.replace(".", "/"): value.numpy() for key, value in TENSORS.items()})
    return buffer.getvalue()


SEEDS = {
    "safetensors": save(TENSORS),
    "torch": packed(),
    "before 1.6": packed(_use_new_zipfile_serialization=False),
    "npz": arrays(),
}


def read_all(path: Path) -> None:
    """Do with a file what loading does; errors of ours are answers."""
    try:
        source = open_container(path)
        source.check(source.entries)
        for key, info in source.entries.items():
            assert tuple(source.read(key).shape) == info.shape
    except ZooError:
        pass
