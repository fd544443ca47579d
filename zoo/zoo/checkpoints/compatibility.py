"""Compatibility of a checkpoint with an architecture beyond names and shapes.

A file says little. Ours carry their whole architecture, OpenAI's format fixes the activation, a folder of another
library states towers and preprocessing. A bare state dict says nothing, and fits with either activation. So what a
checkpoint says has to agree, and what it does not say is noted as an assumption.
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
    folder_config: ModelConfig | None = None,
) -> list[str]:
    """Hold what a checkpoint says of its architecture to the one that is named, and return what it leaves open.

    Args:
        source: the checkpoint, in our format.
        path: its file or folder.
        config: the architecture.
        overrides: the changes of it that the caller asked for, which the checkpoint need not agree with.
        described: what the checkpoint leaves open is known from elsewhere, such as the entry of a tag.
        folder_config: the architecture that the folder of the checkpoint states, where that was read already.

    Returns:
        a sentence about what is taken from the architecture because nobody says it; none where all is said.

    Raises:
        CheckpointError: they differ in what no shape would tell, and the caller did not ask for it.
    """
    sections = dict(config.sections())
    processors = {key: section for key, section in sections.items() if isinstance(section, ProcessorConfig)}
    # as a saved model names them
    config = config.model_copy(update={key: section.self_contained() for key, section in processors.items()})
    named, stated_keys = dict(leaves(config.data())), _stated_keys(source, path, folder_config)
    # an override of a type picks a whole section
    asked = tuple(override.partition("=")[0].removesuffix(".type") for override in overrides)

    def is_asked(key: str) -> bool:
        return any(key == above or key.startswith((f"{above}.", f"{above}[")) for above in asked)

    differing = {
        key: value
        for key, value in stated_keys.items()
        if key in named and named[key] != value and key not in _UNTOLD and not is_asked(key)
    }
    if differing:
        raise _disagreement(source, named, differing)
    # neither activations nor processors leave a trace in shapes
    activations = [f"{key}.activation" for key in sections if key not in processors]
    open_keys = [f"{key} '{named[key]}'" for key in activations if key in named and key not in stated_keys]
    open_keys += [section for section in processors if not any(key.startswith(f"{section}.") for key in stated_keys)]
    if described or not open_keys:
        return []
    return [f"taken from the architecture, since the weights do not tell: {', '.join(open_keys)}"]


def _stated_keys(source: TensorSource, path: Path, folder_config: ModelConfig | None) -> dict[str, Any]:
    """Return what a checkpoint says, by the dotted keys of architectures."""
    if folder_config is None and path.is_dir() and (foreign := read_foreign_config(path)) is not None:
        folder_config = load_config(foreign)
    of_folder = {} if folder_config is None else dict(leaves(folder_config.data()))
    values = dict(getattr(source, "facts", {})) | {
        key: value for key, value in of_folder.items() if key.startswith(_STATED) and key not in _LEFT_TO_US
    }
    if CONFIG_KEY in source.metadata:
        try:
            values |= dict(leaves(parse_json(source.metadata[CONFIG_KEY], CONFIG_KEY).data))
        except ConfigError as error:
            what = f"its architecture in '{CONFIG_KEY}' is damaged: {reason(error)}"
            raise CheckpointError(f"{source.path}: {what}") from None
    return values


def _disagreement(source: TensorSource, named: Mapping[str, Any], differing: Mapping[str, Any]) -> CheckpointError:
    differences = [f"{key} is {named[key]!r}, the weights are for {value!r}" for key, value in differing.items()]
    fixes = [f"{key}={json.dumps(value)}" for key, value in differing.items()]
    # architectures of zoo that the checkpoint fits in every shape, and in what it says
    best = rank({key: info.shape for key, info in source.entries.items()}, limit=1)
    names = best[0].names if best and best[0].fit == 1 else ()
    fitting = [name for name in names if differing.items() <= dict(leaves(load_config(name).data())).items()]
    return CheckpointError(
        f"{source.path} is for another architecture: {'; '.join(differences)}. Choose "
        f"{' or '.join(map(repr, fitting)) or 'that one'}, or say overrides={fixes}"
    )
