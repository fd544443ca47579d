"""What a checkpoint says of its architecture beyond names and shapes, and what it leaves to the one that is named.

What you would not guess: a file says little. Ours carry their whole architecture, OpenAI's layout fixes the activation,
a folder of another library states towers and preprocessing; a bare state dict says nothing, and fits with either
activation. So what is said has to agree, and what is not said is written down as an assumption.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.catalog.architectures import load_config
from zoo.checkpoints.open import read_foreign_config
from zoo.checkpoints.ranking import CONFIG_KEY, leaves, rank
from zoo_core.checkpoints import TensorSource
from zoo_core.config import ModelConfig, ProcessorConfig
from zoo_core.documents.json_reader import parse_json
from zoo_core.errors import CheckpointError, ConfigError, reason

__all__ = ["check_architecture"]

_UNTOLD = ("description", "max_parameters")
"""Keys of architectures that do not change what a model gives."""
_STATED = ("vision.", "text.", "preprocess.")
"""What folders of other libraries state; whence a tokenizer is loaded is no difference."""
_LEFT_TO_US = ("vision.image_size", "text.context_length", "preprocess.alpha")
"""What shapes tell, and `resize` changes; and what those libraries do, but their folders do not state."""


def check_architecture(
    source: TensorSource,
    path: Path,
    config: ModelConfig,
    overrides: Sequence[str] = (),
    *,
    described: bool = False,
    stated: ModelConfig | None = None,
) -> list[str]:
    """Hold what a checkpoint says of its architecture to the one that is named, and return what it leaves open.

    Args:
        source: the checkpoint, in our layout.
        path: its file or folder.
        config: the architecture.
        overrides: the changes of it that the caller asked for, which the checkpoint need not agree with.
        described: what the checkpoint leaves open is known from elsewhere, such as the entry of a tag.
        stated: the architecture that the folder of the checkpoint states, where that was read already.

    Returns:
        a sentence about what is taken from the architecture because nobody says it; none where all is said.

    Raises:
        CheckpointError: they differ in what no shape would tell, and the caller did not ask for it.
    """
    sections = dict(config.sections())
    processors = {key: section for key, section in sections.items() if isinstance(section, ProcessorConfig)}
    own = config.model_copy(update={key: section.self_contained() for key, section in processors.items()})  # as saved
    ours, theirs = dict(leaves(own.data())), _said(source, path, stated)
    asked = tuple(one.partition("=")[0].removesuffix(".type") for one in overrides)  # which picks a whole section
    differing = {
        key: value
        for key, value in theirs.items()
        if key in ours and ours[key] != value and key not in _UNTOLD and not _below(key, asked)
    }
    if differing:
        raise _disagreement(source, ours, differing)
    # neither activations nor processors leave a trace in shapes
    activations = [f"{key}.activation" for key in sections if key not in processors]
    open_keys = [f"{key} '{ours[key]}'" for key in activations if key in ours and key not in theirs]
    open_keys += [one for one in processors if not any(key.startswith(f"{one}.") for key in theirs)]
    if described or not open_keys:
        return []
    return [f"taken from the architecture, since the weights do not tell: {', '.join(open_keys)}"]


def _said(source: TensorSource, path: Path, stated: ModelConfig | None) -> dict[str, Any]:
    """Return what a checkpoint says, by the dotted keys of architectures."""
    if stated is None and path.is_dir() and (foreign := read_foreign_config(path)) is not None:
        stated = load_config(foreign)
    folder = {} if stated is None else dict(leaves(stated.data()))
    said = dict(getattr(source, "facts", {})) | {
        key: value for key, value in folder.items() if key.startswith(_STATED) and key not in _LEFT_TO_US
    }
    if CONFIG_KEY in source.metadata:
        try:
            said |= dict(leaves(parse_json(source.metadata[CONFIG_KEY], CONFIG_KEY).data))
        except ConfigError as error:
            what = f"its architecture in '{CONFIG_KEY}' is damaged: {reason(error)}"
            raise CheckpointError(f"{source.path}: {what}") from None
    return said


def _disagreement(source: TensorSource, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> CheckpointError:
    told = "; ".join(f"{key} is {ours[key]!r}, the weights are for {value!r}" for key, value in theirs.items())
    fixes = [f"{key}={json.dumps(value)}" for key, value in theirs.items()]
    fitting = " or ".join(map(repr, _fitting(source, theirs))) or "that one"
    return CheckpointError(
        f"{source.path} is for another architecture: {told}. Choose {fitting}, or say overrides={fixes}"
    )


def _fitting(source: TensorSource, said: Mapping[str, Any]) -> list[str]:
    """Return the architectures of zoo that a checkpoint fits in every shape, and in what it says."""
    best = rank({key: info.shape for key, info in source.entries.items()}, limit=1)
    names = best[0].names if best and best[0].fit == 1 else ()
    return [name for name in names if said.items() <= dict(leaves(load_config(name).data())).items()]


def _below(key: str, asked: Sequence[str]) -> bool:
    return any(key == one or key.startswith((f"{one}.", f"{one}[")) for one in asked)
