"""Identification: which architecture a checkpoint belongs to.

Names and shapes decide; no tensor is read. Where none of zoo's own architectures fits in every entry, those of other
plugins, and the one that a file states for itself, are built without memory and ranked beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.building.source import resolve
from zoo.catalog.architectures import load_config
from zoo.catalog.listing import list_architectures
from zoo.checkpoints.open import open_checkpoint
from zoo.checkpoints.ranking import CONFIG_KEY, OWN, Candidate, Shaped, leaves, rank
from zoo_core.boundary import checked
from zoo_core.documents.json_reader import parse_json
from zoo_core.errors import ZooError

if TYPE_CHECKING:
    from zoo_core.checkpoints import TensorSource
    from zoo_core.config import ModelConfig

__all__ = ["identify"]


@checked
def identify(
    path: str | Path,
    *,
    limit: int = 5,
    weights: str | None = None,
    architectures: Sequence[str | Path | Mapping[str, Any] | ModelConfig] = (),
) -> list[Candidate]:
    """Return the architectures that a checkpoint's names and shapes fit best, the best first; none where none is near.

    Args:
        path: a file or folder of any container and format that an installed plugin knows.
        limit: how many candidates to return.
        weights: which state dict of a training checkpoint; see `zoo.build`.
        architectures: others to rank beside those that are installed, such as YAML files and saved folders of yours.

    Raises:
        CheckpointError: it holds no weights that can be read.
        ConfigError: one of `architectures` is wrong.
    """
    source = open_checkpoint(path, weights=weights)
    shapes = {key: info.shape for key, info in source.entries.items()}
    others: dict[str, Shaped] = {}
    for index, architecture in enumerate(architectures):
        name = str(architecture) if isinstance(architecture, str | Path) else f"architectures[{index}]"
        others[name] = _shaped(resolve(architecture).config)
    carried = _carried_config(source)
    ranked = rank(shapes, limit=limit, others=others)
    if not ranked or ranked[0].fit < 1:
        more: dict[str, Shaped] = {}
        for listing in list_architectures():  # `rank` knows those of zoo itself
            if listing.problem is None and listing.distribution != OWN:
                with suppress(Exception):  # a stranger's tower may raise anything; whoever builds it is told
                    more[listing.name] = _shaped(load_config(listing.name))
        if carried is not None:
            with suppress(Exception):  # whatever a file carries need not be buildable
                more[str(path)] = _shaped(carried)
        ranked = rank(shapes, limit=limit, others=more | others) if more else ranked
    if carried is None:
        return ranked
    return [_narrowed(candidate, carried) if candidate.fit == 1 else candidate for candidate in ranked]


def _shaped(architecture: ModelConfig) -> Shaped:
    """Return an architecture with name and shape of each entry, built without its memory."""
    from zoo.materialize.skeleton import skeleton  # imports torch

    entries = skeleton(architecture).state_dict()
    return architecture, {key: tuple(value.shape) for key, value in entries.items()}


def _carried_config(source: TensorSource) -> ModelConfig | None:
    """Return the architecture that a file of `zoo.save` carries, if its parts are installed here."""
    text = source.metadata.get(CONFIG_KEY)
    if text is None:
        return None
    with suppress(ZooError):
        data = parse_json(text, str(source.path)).data
        return None if "extends" in data else load_config(data)  # a saved one is whole, and reads no other file
    return None


def _narrowed(candidate: Candidate, carried: ModelConfig) -> Candidate:
    """Return a candidate without the names whose configs differ from the one that the file carries."""
    config = dict(leaves(carried.data()))
    agreeing = [
        name
        for index, name in enumerate(candidate.names)
        if all(values[index] == config.get(key) for key, values in candidate.untold.items())
    ]
    return replace(candidate, names=(agreeing[0],), untold={}) if len(agreeing) == 1 else candidate
