"""Writing of saved models (see `zoo.saved.read`), whole or not at all."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from zoo._version import __version__
from zoo.catalog.architectures import registry
from zoo.checkpoints.containers.wrappers import plain_names
from zoo.checkpoints.ranking import CONFIG_KEY
from zoo.materialize.skeleton import skeleton
from zoo.saved.manifest import ORIGIN, digest_of, file_digests
from zoo.saved.model_card import model_card
from zoo.saved.origin import FORMAT
from zoo.saved.read import CONFIG, README, WEIGHTS, is_saved_model
from zoo.saved.tokenizer_files import write_tokenizer
from zoo_core.boundary import checked
from zoo_core.config import TOKENIZER_FOLDER, ModelConfig
from zoo_core.errors import InputError, SaveError, ZooError
from zoo_core.files.atomic_folder import atomic_folder
from zoo_core.models.dual_encoder import dual_encoder_of
from zoo_core.nn.state_dict import is_sharded

if TYPE_CHECKING:  # `checked` leaves it to `dual_encoder_of`, which says more
    from zoo_core.models.dual_encoder import DualEncoder

__all__ = ["check_plain", "expect_room", "save", "write_folder"]

LACKING = "the files of the tokenizer were not to be had where the model was saved"

_log = logging.getLogger(__name__)


@checked
def save(model: DualEncoder, folder: str | Path, *, probe: bool = True) -> Path:
    """Write a model that `zoo.build` made to a folder; one that is there already is replaced as a whole.

    A process that is killed meanwhile leaves the old folder or the new one. Files of the tokenizer that are not to be
    had here, as without a network, are left out; the log and `zoo.json` say so.

    Args:
        model: both towers, with whatever weights they have now.
        folder: where; its parents are made.
        probe: also record what the model makes of a fixed picture and fixed captions, which takes one pass.

    Returns:
        the folder.

    Raises:
        InputError: the model has no config, or only one of its towers, or layers that its architecture has not, such
            as adapters.
        NotFiniteError: its features are not finite.
        SaveError: the folder holds something else than a saved model, or cannot be written; nothing was changed.
    """
    return write_folder(model, Path(folder), probe=probe)


def write_folder(
    model: DualEncoder,
    target: Path,
    *,
    probe: bool = True,
    complete: bool = False,
    source: Mapping[str, Any] | None = None,
    address: str | None = None,
    extra: Mapping[str, str] | None = None,
) -> Path:
    """Do what `save` does.

    Args:
        model, target, probe: those of `save`.
        complete: refuse to write a folder without the files of its tokenizer.
        source: where the weights came from, for `zoo.json` and the README.
        address: what the README loads the model by; the name of the folder where None.
        extra: further text files by name, which the digest covers.

    Raises:
        ZooError: what `save` raises, or with `complete` that of the tokenizer.
    """
    from zoo.saved.probe import make_probe  # imports PIL

    model = dual_encoder_of(model)
    config = getattr(model, "config", None)
    if not isinstance(config, ModelConfig):
        raise InputError("this model has no config, so it could not be built again; build it with zoo.build")
    if not model.is_whole:
        raise InputError("this model holds one tower only; save the whole model")
    _check_layers(model, config)
    expect_room(target)
    config = config.self_contained()
    origin = _origin(config)
    if source is not None:
        origin["source"] = dict(source)
    with atomic_folder(target) as scratch:
        try:
            write_tokenizer(model.tokenizer, scratch)
        except ZooError as error:
            if complete:
                raise
            origin["lacking"] = {TOKENIZER_FOLDER: LACKING}  # the error would tell folders of this machine
            _log.warning("%s is saved without the files of its tokenizer: %s", target, error)
        for name, text in (extra or {}).items():
            (scratch / name).write_text(text, encoding="utf-8")
        if probe:
            origin["probe"] = make_probe(model)
        _write_parts(model, config, scratch, origin, os.path.realpath(target).rpartition(os.sep)[2], address)
    return target


def expect_room(target: Path) -> None:
    """Raise a `SaveError` where something stands at `target` that is no saved model, and no empty folder."""
    if target.exists() and not is_saved_model(target) and not (target.is_dir() and not any(target.iterdir())):
        raise SaveError(f"{target} exists and is no saved model; choose another folder")


def _check_layers(model: DualEncoder, config: ModelConfig) -> None:
    """Refuse a model that its config would not build again, such as one with adapters or quantized layers."""
    entries = model.state_dict()
    check_plain(entries)
    names = plain_names(entries)[0]
    shapes = {names[key]: getattr(value, "shape", None) for key, value in entries.items()}
    expected = {key: value.shape for key, value in skeleton(config).state_dict().items()}
    other = [key for key in (*shapes, *expected) if shapes.get(key) != expected.get(key)]
    if other:
        raise InputError(
            f"{len(other)} tensors are not those of the model's architecture, {other[0]} the first: its layers were "
            "replaced (adapters, quantization); merge or undo that first, or keep model.state_dict() with torch.save"
        )


def check_plain(entries: Mapping[str, Any]) -> None:
    """Refuse weights that are no plain tensors with values, which a file of theirs would not bring back."""
    for key, value in entries.items():
        if value.is_meta:
            raise InputError(f"{key} has no values here: the model is offloaded, or was built on the meta device")
        if type(value) not in (torch.Tensor, torch.nn.Parameter):
            fix = "load a gathered state dict into a whole model" if is_sharded(value) else "save the model before that"
            raise InputError(
                f"{key} is a {type(value).__name__}, no plain tensor: the model is quantized or sharded; {fix}, or "
                "keep model.state_dict() with torch.save"
            )


def _sort_metadata(path: Path) -> None:
    """Put the metadata of a safetensors file in order: its library leaves that to chance, and equal models differ."""
    with path.open("r+b") as file:
        header = file.read(int.from_bytes(file.read(8), "little")).decode()
        start = header.index(":") + 1  # of the first entry, which is __metadata__
        metadata, end = json.JSONDecoder().raw_decode(header, start)
        ordered = json.dumps(metadata, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert len(ordered) == end - start, "JSON of another spelling"
        file.seek(8 + len(header[:start].encode()))
        file.write(ordered.encode())


def _write_parts(
    model: DualEncoder, config: ModelConfig, scratch: Path, origin: dict[str, Any], name: str, address: str | None
) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]

    (scratch / CONFIG).write_text(yaml.safe_dump(config.data(), sort_keys=False), encoding="utf-8")
    tensors = {key: value.detach().contiguous() for key, value in model.state_dict().items()}
    try:
        # the file alone still says what it is for: activation and preprocessing leave no trace in names and shapes
        save_file(tensors, scratch / WEIGHTS, metadata={"format": "pt", CONFIG_KEY: json.dumps(config.data())})
    except SafetensorError as error:
        raise SaveError(f"{name} cannot be written: {error}") from error
    _sort_metadata(scratch / WEIGHTS)
    origin["files"] = file_digests(scratch)
    origin["digest"] = digest_of(origin)
    (scratch / ORIGIN).write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    card = model_card(config, origin, title=name, address=address or name, parameters=parameters)
    (scratch / README).write_text(card, encoding="utf-8")


def _origin(config: ModelConfig) -> dict[str, Any]:
    from PIL import Image

    sections = (config, *(section for _, section in config.sections()))
    parts = {section.kind: str(registry().get(section.kind, section.component)) for section in sections}
    versions = {
        "zoo": __version__,
        "python": sys.version.partition(" ")[0],
        "torch": torch.__version__,
        "pillow": Image.__version__,
    }
    return {"format": FORMAT, "versions": versions, "parts": parts}
