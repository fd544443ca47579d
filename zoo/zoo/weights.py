"""Weights: which file a tag stands for, and how a safetensors file becomes a model's parameters.

The model is built without memory (on the meta device) and takes the file's tensors as its own, so that nothing is
drawn at random only to be thrown away, and nothing is held twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from zoo.catalog import architectures
from zoo.digests import sha256_of
from zoo.downloads import fetch_weights
from zoo.pretrained_entries import Pretrained, alike_with, entries_of
from zoo_core.config import ModelConfig
from zoo_core.errors import CheckpointError, UnknownNameError, did_you_mean

if TYPE_CHECKING:
    from zoo_core.dual_encoder import DualEncoder

__all__ = ["find_entry", "load_weights", "weights_of"]


def find_entry(source: Any, pretrained: str | Path) -> Pretrained | None:
    """Return the entry of a tag; None where `pretrained` is a file.

    Args:
        source: what the architecture is built from; only a name has tags.
        pretrained: a tag, or a file that ends in `.safetensors`.

    Raises:
        UnknownNameError: no such tag; an architecture of equal shapes that has it is named.
    """
    if isinstance(pretrained, Path) or pretrained.endswith(".safetensors"):
        return None
    entries = entries_of(source) if isinstance(source, str) else {}
    if pretrained in entries:
        return entries[pretrained]
    known = did_you_mean(pretrained, entries) if entries else "; it has none"
    others = alike_with(architectures().find(source).name, pretrained) if isinstance(source, str) else []
    if others:
        known = (
            f"; {' and '.join(map(repr, others))} has these weights, with the activation that they were trained with"
        )
    raise UnknownNameError(f"architecture {source!r} has no pretrained tag '{pretrained}'{known}")


def weights_of(entry: Pretrained, config: ModelConfig, tag: str, *, local_files_only: bool = False) -> Path:
    """Return the safetensors file of an entry, downloaded if it has to be.

    Raises:
        CheckpointError: it is damaged, or is for another activation than the architecture's.
        DownloadError: it cannot be had from the Hub, or is not what it was when it was pinned.
    """
    _check_fits(entry, config, tag)
    if entry.hub:
        return fetch_weights(entry.hub, entry.sha256, local_files_only=local_files_only).path
    assert entry.path is not None
    _check_digest(entry.path, entry.sha256)
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


def _check_digest(path: Path, expected: str | None) -> None:
    if expected is None or not path.is_file():
        return
    found = sha256_of(path)
    if found != expected:
        raise CheckpointError(f"{path} is damaged: expected sha256 {expected}, found {found}; get it again")


def _shown(keys: Iterable[str], limit: int = 6) -> str:
    listed = list(keys)
    return ", ".join(listed[:limit]) + (f" and {len(listed) - limit} more" if len(listed) > limit else "")
