"""Weights of a tag or path, and their checks against the architecture."""

from __future__ import annotations

import os.path
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.catalog.architectures import architectures
from zoo_core.config import ModelConfig, TowerConfig
from zoo_core.documents.extends import is_path
from zoo_core.errors import CheckpointError, InputError, UnknownNameError, describe, did_you_mean
from zoo_core.files.hashing import sha256_of

if TYPE_CHECKING:
    from zoo.catalog.pretrained import Pretrained
    from zoo.checkpoints.match import LoadOptions

ENDINGS = (".safetensors", ".index.json", ".pt", ".pth", ".bin", ".ckpt", ".npz")
"""How files of weights are named."""

__all__ = ["ENDINGS", "allow_resampling", "resolve_tag", "weights_of"]


def resolve_tag(source: Any, pretrained: str | Path) -> Pretrained | None:
    """Return the entry of a tag; None where `pretrained` is a file.

    Args:
        source: what the architecture is built from; only a name has tags.
        pretrained: a tag, or the path of a file or folder; a string is one if it has the ending of a file of weights,
            or names something that is there and is no tag.

    Raises:
        UnknownNameError: no such tag; an architecture of equal shapes that has it is named.
        InputError: it is a URL.
    """
    if isinstance(pretrained, str) and "://" in pretrained:
        raise InputError(f"pretrained='{pretrained}' is a URL, and nothing is fetched; download it and give its path")
    if isinstance(pretrained, Path) or pretrained.endswith(ENDINGS):
        return None
    from zoo.catalog.pretrained import alike_with, entries_of

    named = isinstance(source, str) and not is_path(source)
    entries = entries_of(source) if named else {}
    if pretrained in entries:
        return entries[pretrained]
    if os.path.exists(pretrained):  # noqa: PTH110 - Path.exists() raises where the name is too long
        return None
    if pretrained.startswith("hf-hub:"):
        raise InputError(f"'{pretrained}' brings its architecture with it: zoo.build('{pretrained}')")
    hint = did_you_mean(pretrained, entries) if entries else "; it has none, and there is no such file"
    others = alike_with(architectures().find(source).name, pretrained) if named else []
    if others:
        hint = f"; {' and '.join(map(repr, others))} has these weights, with the activation that they were trained with"
    architecture = f"architecture {describe(source)}" if isinstance(source, str | Path) else "this architecture"
    raise UnknownNameError(f"{architecture} has no pretrained tag {describe(pretrained)}{hint}")


def weights_of(entry: Pretrained, config: ModelConfig, tag: str, *, local_files_only: bool = False) -> Path:
    """Return the file of weights of an entry, downloaded if it has to be.

    Raises:
        CheckpointError: it is damaged, or is for another activation than the architecture's.
        DownloadError: it cannot be had from the Hub, or is not what it was when it was pinned.
    """
    _check_fits(entry, config, tag)
    if entry.hub:
        from zoo.hub.weights import fetch_weights

        return fetch_weights(entry.hub, entry.sha256, local_files_only=local_files_only).path
    assert entry.path is not None
    if entry.sha256 is not None and entry.path.is_file() and (sha256 := sha256_of(entry.path)) != entry.sha256:
        raise CheckpointError(f"{entry.path} is damaged: expected sha256 {entry.sha256}, found {sha256}; get it again")
    return entry.path


def allow_resampling(options: LoadOptions, trained: ModelConfig, wanted: ModelConfig) -> LoadOptions:
    """Return options that let positions be resampled, where another size is wanted than weights were trained for."""
    before, after = (
        {name: tower.processor_options() for name, tower in config.towers.items()} for config in (trained, wanted)
    )
    if before == after:
        return options
    size = trained.vision.image_size if "image" in trained.towers else None
    return replace(options, resize=options.resize or "bicubic", trained_size=size)


def _check_fits(entry: Pretrained, config: ModelConfig, tag: str) -> None:
    """Refuse weights whose activation or text contract is not the architecture's: the shapes alone would not tell."""
    contract = config.text_contract()
    for key, trained in entry.text:
        named = getattr(contract, key, None)
        if None not in (trained, named) and named != trained:
            raise CheckpointError(
                f"pretrained '{tag}' was trained with text {key} '{trained}', but that of the architecture is '{named}'"
            )
    for key, section in config.sections():
        activation = getattr(section, "activation", None) if isinstance(section, TowerConfig) else None
        if entry.activation is not None and activation is not None and activation != entry.activation:
            raise CheckpointError(
                f"pretrained '{tag}' was trained with activation {entry.activation}, "
                f"but {key}.activation is {activation}"
            )
