"""Weights: which file a tag stands for, and how a safetensors file becomes a model's parameters.

The model is built without memory (on the meta device) and takes the file's tensors as its own, so that nothing is
drawn at random only to be thrown away, and nothing is held twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from zoo.pretrained_entries import Pretrained, entries_of
from zoo_core.config import ModelConfig
from zoo_core.errors import CheckpointError, UnknownNameError, did_you_mean

if TYPE_CHECKING:
    from zoo_core.dual_encoder import DualEncoder

__all__ = ["find_weights", "load_weights"]


def find_weights(source: Any, config: ModelConfig, pretrained: str | Path) -> Path:
    """Return the safetensors file that `pretrained` stands for.

    Args:
        source: what the architecture was built from; only a name has tags.
        config: the architecture, whose activation has to be the one that the weights were trained with.
        pretrained: a tag, or a file that ends in `.safetensors`.

    Raises:
        UnknownNameError: no such tag.
        CheckpointError: a damaged file, or weights for another activation.
    """
    if isinstance(pretrained, Path) or pretrained.endswith(".safetensors"):
        return Path(pretrained)
    entries = entries_of(source) if isinstance(source, str) else {}
    if pretrained not in entries:
        known = f"{did_you_mean(pretrained, entries)}" if entries else "; it has none"
        raise UnknownNameError(f"architecture {source!r} has no pretrained tag '{pretrained}'{known}")
    entry = entries[pretrained]
    _check_fits(entry, config, pretrained)
    _check_digest(entry)
    return entry.path


def load_weights(model: DualEncoder, path: Path, device: torch.device) -> None:
    """Give `model` the tensors of a safetensors file; every parameter must be there, and nothing else.

    Raises:
        CheckpointError: the file is damaged or does not fit; the keys are named.
    """
    tensors = _read(path, model, device)
    try:
        report: Any = model.load_state_dict(tensors, strict=False, assign=True)
    except RuntimeError as error:
        reasons = [line.strip() for line in str(error).splitlines()[1:]]
        raise CheckpointError(f"{path} does not fit the architecture: {_shown(reasons)}") from None
    found: dict[str, list[str]] = {"missing": report.missing_keys, "unexpected": report.unexpected_keys}
    if any(found.values()):
        told = "; ".join(f"{len(keys)} {what}: {_shown(keys)}" for what, keys in found.items() if keys)
        raise CheckpointError(f"{path} does not fit the architecture: {told}")


def _read(path: Path, model: DualEncoder, device: torch.device) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path} is no file; expected safetensors weights")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:  # pyright: ignore[reportUnknownVariableType]
            keys: list[str] = list(file.keys())  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
            return {key: file.get_tensor(key) for key in keys if model.takes(key)}  # pyright: ignore[reportUnknownMemberType]
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}") from None


def _check_fits(entry: Pretrained, config: ModelConfig, tag: str) -> None:
    """Refuse weights whose activation is not the architecture's: the shapes alone would not tell."""
    for side in ("vision", "text"):
        found = getattr(getattr(config, side), "activation", None)
        if entry.activation is not None and found is not None and found != entry.activation:
            raise CheckpointError(
                f"pretrained '{tag}' was trained with activation {entry.activation}, but {side}.activation is {found}"
            )


def _check_digest(entry: Pretrained) -> None:
    if entry.sha256 is None or not entry.path.is_file():
        return
    with entry.path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != entry.sha256:
        raise CheckpointError(
            f"{entry.path} is damaged: expected sha256 {entry.sha256}, found {found}; install zoo again"
        )


def _shown(keys: Iterable[str], limit: int = 6) -> str:
    listed = list(keys)
    return ", ".join(listed[:limit]) + (f" and {len(listed) - limit} more" if len(listed) > limit else "")
