"""Saved models: a folder that holds all that `zoo.build` needs.

    config.yaml         the resolved architecture
    model.safetensors   the weights
    zoo.json            which zoo and which plugins wrote it

A save writes a new folder beside the old one and then swaps their names, so that no reader meets a folder half-written.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import zoo
from zoo.catalog import config as load_config
from zoo.catalog import registry
from zoo_core.config import ModelConfig
from zoo_core.errors import CheckpointError, InputError, SaveError

if TYPE_CHECKING:
    import torch

    from zoo_core.dual_encoder import DualEncoder

__all__ = ["is_folder", "load", "open_folder", "save"]

CONFIG = "config.yaml"
WEIGHTS = "model.safetensors"
ORIGIN = "zoo.json"


def save(model: DualEncoder, folder: str | Path) -> Path:
    """Write a model that `zoo.build` made to a folder; one that is there already is replaced as a whole.

    Returns:
        the folder.

    Raises:
        InputError: the model has no config, or only one of its towers.
        SaveError: the folder holds something else than a saved model, or cannot be written; nothing was changed.
    """
    from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]

    config = model.config
    if not isinstance(config, ModelConfig):
        raise InputError("this model has no config, so it could not be built again; build it with zoo.build")
    if model.visual is None or model.text is None:
        raise InputError("this model holds one tower only; save the whole model")
    target = Path(folder)
    if target.exists() and not is_folder(target) and not (target.is_dir() and not any(target.iterdir())):
        raise SaveError(f"{target} exists and is no saved model; choose another folder")
    scratch: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        (scratch / CONFIG).write_text(yaml.safe_dump(config.data(), sort_keys=False), encoding="utf-8")
        (scratch / ORIGIN).write_text(json.dumps(_origin(config), indent=2) + "\n", encoding="utf-8")
        tensors = {key: value.detach().contiguous() for key, value in model.state_dict().items()}
        save_file(tensors, scratch / WEIGHTS, metadata={"format": "pt"})
        _finish(scratch)
        _swap(scratch, target)
    except OSError as error:
        raise SaveError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    return target


def load(
    folder: str | Path, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> DualEncoder:
    """Build the model of a folder that `save` wrote.

    Raises:
        CheckpointError: it is no such folder, or its weights do not fit its config.
    """
    from zoo.building import assemble

    config, weights = open_folder(Path(folder))
    return assemble(config, weights=weights, device=device, dtype=dtype)


def is_folder(source: Any) -> bool:
    """Tell whether `source` is the path of a saved model."""
    return isinstance(source, str | Path) and (Path(source) / CONFIG).is_file() and (Path(source) / WEIGHTS).is_file()


def open_folder(folder: Path, overrides: Sequence[str] = ()) -> tuple[ModelConfig, Path]:
    """Return the config of a saved model and the path of its weights."""
    if not is_folder(folder):
        raise CheckpointError(f"{folder} is no saved model: expected a folder with {CONFIG} and {WEIGHTS}")
    return load_config(folder / CONFIG, overrides), folder / WEIGHTS


def _origin(config: ModelConfig) -> dict[str, Any]:
    sections = (config, config.vision, config.text, config.tokenizer, config.preprocess)
    parts = {section.kind: str(registry().get(section.kind, section.component)) for section in sections}
    return {"format": 1, "zoo": zoo.__version__, "parts": parts}


def _finish(folder: Path) -> None:
    """Bring every file of the new folder to the disk before it takes a name, with the modes that new files get."""
    mask = os.umask(0)
    os.umask(mask)
    folder.chmod(0o777 & ~mask)  # mkdtemp made it for its owner alone
    for path in folder.iterdir():
        path.chmod(0o666 & ~mask)
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def _swap(new: Path, target: Path) -> None:
    """Put `new` where `target` stands; the old folder keeps its content until the new one has its name."""
    if not target.exists():
        new.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    target.rename(old)
    try:
        new.rename(target)
    except OSError:
        with suppress(OSError):
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
