"""Conversion of models to the folders of other libraries.

A folder is read back before it takes its place. Whatever its config does not say as the model's own does is refused by
name, so that no option is lost on the way, and so is every tensor without a counterpart. So is a tokenizer whose files
give other ids there: transformers reads all those of some models with one class.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from zoo.building.build import build_source
from zoo.building.build import tokenizer as tokenizer_for
from zoo.building.source import Source, resolve
from zoo.catalog.architectures import load_config
from zoo.checkpoints.open import checkpoint_formats
from zoo.saved.write import check_plain, save
from zoo.transfer.hostile_captions import DAMAGED, PLAIN, SPELLED
from zoo_core.boundary import checked
from zoo_core.boundary.plugin_code import PluginCode, maker_of
from zoo_core.checkpoints import CheckpointFormat, Conversion, TensorInfo
from zoo_core.config import ModelConfig
from zoo_core.errors import (
    CheckpointError,
    ConfigError,
    InputError,
    SaveError,
    UnknownNameError,
    ZooError,
    describe,
    did_you_mean,
)
from zoo_core.files.atomic_folder import atomic_folder

if TYPE_CHECKING:
    from torch import Tensor

    from zoo_core.models.dual_encoder import DualEncoder
    from zoo_core.text.tokenizer import Tokenizer

__all__ = ["ZOO", "convert", "export", "libraries", "written_formats"]

_log = logging.getLogger(__name__)

ROW = 64
"""Ids of a caption that are compared; no fixed caption is as long in a vocabulary of words."""

ZOO = "zoo"
"""The name of our own folders."""
UNTOLD = (
    "model",
    "description",
    "max_parameters",
    "init_logit_scale",
    "init_logit_bias",
    "nonscalar_logit_scale",
    "tokenizer.name",
    "tokenizer.special_tokens_in_text",
)
"""Keys that are seen from the tensors (`clip` and `custom-text-clip` are one model), where a tokenizer is from, and
what each library has a way of its own for."""
UNSTATED = ("preprocess.alpha",)
"""Keys of which each library has one value that its files do not state: another one is told, and changes few inputs."""
FROM_FILES = ("tokenizer.pad_id", "tokenizer.eos_id")
"""Keys that are null where only the files of a tokenizer tell them: two that are told have to be equal."""


@dataclass(frozen=True)
class _Ids:
    """Rows of fixed captions, and the id that fills them."""

    rows: Mapping[str, list[int]]
    pad_id: int


@checked
def convert(
    source: str | Path | Mapping[str, Any] | ModelConfig,
    folder: str | Path,
    *,
    to: str = ZOO,
    pretrained: str | Path | None = None,
    architecture: str | Path | None = None,
    overrides: Sequence[str] = (),
    force: bool = False,
) -> Path:
    """Write a model as a folder that another library loads, or as one of ours.

    Args:
        source: a folder with a model, ours (`hf-hub:` too) or another library's; an architecture, whose weights
            `pretrained` names; `NAME:TAG`, which is both; or a file of weights, whose `architecture` is named.
        folder: where; its parents are made.
        to: the library: `"zoo"`, `"open_clip"`, `"transformers"` or any other that a plugin writes for.
        pretrained: a tag or a file, as in `zoo.build`.
        architecture: what the weights of a file belong to.
        overrides: `"key.path=value"` changes of the architecture, such as those that the library cannot express.
        force: replace a folder that is there already.

    Returns:
        the folder.

    Raises:
        CheckpointError: the library cannot express the model; every option and tensor that is to blame is named.
        InputError: there are no weights, or a file of them without an architecture.
        UnknownNameError: no plugin writes for such a library.
        SaveError: the folder is there already, or cannot be written; nothing was changed.
    """
    target = Path(folder)
    if to != ZOO:
        written_formats(to)
    _expect_free(target, force)
    resolved, weights = _with_weights(source, pretrained, architecture)
    return export(build_source(resolved, pretrained=weights, overrides=overrides), target, to=to, force=force)


def export(model: DualEncoder, folder: str | Path, *, to: str, force: bool = False) -> Path:
    """Write a model that is built already; the arguments and errors are those of `convert`."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]

    target = Path(folder)
    _expect_free(target, force)
    if to == ZOO:
        return save(model, target)
    if not isinstance(getattr(model, "config", None), ModelConfig) or model.visual is None or model.text is None:
        raise InputError("a folder holds a whole model with its config; build it with zoo.build, with both towers")
    check_plain(model.state_dict())
    entries = {
        key: TensorInfo(str(value.dtype).removeprefix("torch."), tuple(value.shape))
        for key, value in model.state_dict().items()
    }
    format, files, plan = _fitting(model.config, entries, written_formats(to))
    with atomic_folder(target) as scratch:
        tokenizer_files, ids = _tokenizer_files(model, to, target)
        for name, content in {**tokenizer_files, **files}.items():
            (scratch / name).write_bytes(content)
        read_config = _expect_same(model.config, format, scratch, target)
        if ids is not None:
            _expect_same_ids(model.config, ids, read_config, format, scratch, target)
        with PluginCode(maker_of(type(format)), "its conversions failed"):
            tensors = _converted(plan, model.state_dict())
        try:
            save_file(tensors, scratch / format.weights_name, metadata={"format": "pt"})
        except SafetensorError as error:
            raise SaveError(f"{target} cannot be written: {error}") from error
    return target


def libraries() -> list[str]:
    """Return the names that `to` may have."""
    return [ZOO, *sorted({format.library for _, format in checkpoint_formats() if format.library})]


def written_formats(library: str) -> list[CheckpointFormat]:
    """Return the formats of a library.

    Raises:
        UnknownNameError: no plugin writes any.
    """
    formats = [format for _, format in checkpoint_formats() if format.library == library]
    if not formats:
        raise UnknownNameError(f"nothing is written for {describe(library)}{did_you_mean(library, libraries())}")
    return formats


def _expect_free(target: Path, force: bool) -> None:
    if target.exists() and not (target.is_dir() and (force or not any(target.iterdir()))):
        fix = "give force=True (--force) to replace it" if target.is_dir() else "choose another name"
        raise SaveError(f"{target} is there already; {fix}")


def _with_weights(
    source: object, pretrained: str | Path | None, architecture: str | Path | None
) -> tuple[Source, str | Path | None]:
    """Return what to build and the weights to go with it, None for a source that brings its own."""
    if architecture is not None:
        if pretrained is not None or not isinstance(source, str | Path):
            raise InputError(f"architecture={str(architecture)!r} is that of a file of weights, found {source!r}")
        return resolve(architecture), Path(source)
    path = Path(source) if isinstance(source, str | Path) else None
    if path is not None and path.is_file() and path.suffix.lower() not in (".json", ".yaml", ".yml"):
        raise InputError(
            f"{path} is a file of weights; name the architecture that they belong to (`zoo identify {path}` ranks them)"
        )
    resolved = resolve(source)
    if pretrained is None and not resolved.has_weights:
        raise InputError(f"{source!r} is an architecture without weights; name a tag or a file of them: pretrained=...")
    return resolved, pretrained


def _fitting(
    config: ModelConfig, entries: Mapping[str, TensorInfo], formats: Sequence[CheckpointFormat]
) -> tuple[CheckpointFormat, Mapping[str, bytes], Sequence[Conversion]]:
    """Return the first format that can hold a model, its files and its conversions.

    Raises:
        CheckpointError: none can; what each of them says is told.
    """
    reasons: list[str] = []
    for format in formats:
        try:
            files = format.files(config.data())
            plan = format.export(entries, config.data())
            with PluginCode(maker_of(type(format)), "its conversions cannot be read"):
                unused = sorted(entries.keys() - {key for step in plan for key in step.sources})
            if unused:
                more = f" and {len(unused) - 1} more" if len(unused) > 1 else ""
                raise CheckpointError(f"{format.name} has no place for {unused[0]}{more}")
        except CheckpointError as error:
            reasons.append(str(error))
        else:
            return format, files, plan
    raise CheckpointError("; ".join(dict.fromkeys(reasons)))


def _tokenizer_files(model: DualEncoder, library: str, target: Path) -> tuple[Mapping[str, bytes], _Ids | None]:
    """Return the files in which a library finds the model's tokenizer, and the ids that it gives to fixed captions.

    Where the files, or a tokenizer made of them, are not to be had, that is said, and there are none.
    """
    if model.tokenizer is None:
        return {}, None
    try:
        files = model.tokenizer.files_for(library)
        return files, _ids(model.tokenizer) if files else None
    except ZooError as error:
        _log.warning("%s is written without the files of its tokenizer: %s", target, error)
        return {}, None


def _expect_same(config: ModelConfig, format: CheckpointFormat, scratch: Path, target: Path) -> ModelConfig:
    """Hold what the files of a folder state to the architecture that was written, and return it."""
    try:
        architecture = format.architecture(scratch)
        if architecture is None:
            raise CheckpointError(f"{format.name} does not know the folder that it wrote")
        read_config = load_config(architecture)
    except ConfigError as error:
        text = str(error).replace(str(scratch), str(target))
        raise CheckpointError(f"{format.name} cannot express the architecture: {text}") from None
    written, read = config.data(), read_config.data()
    if read["tokenizer"].get("name") == str(scratch.resolve()):  # its ids are compared, if it is there at all
        written, read = written | {"tokenizer": None}, read | {"tokenizer": None}
    problems = {
        key: f"{key} is {describe(value)} and would be read as {describe(other)}"
        for key, value, other in _differences(written, read)
        if key not in UNTOLD and not (key in FROM_FILES and None in (value, other))
    }
    for key in UNSTATED:
        if key in problems:
            _log.warning("%s: %s, which %s does not state", target, problems.pop(key), format.name)
    if problems:
        first, more = [*problems.values()][:6], f"; and {len(problems) - 6} more" if len(problems) > 6 else ""
        raise CheckpointError(f"{format.name} cannot express the architecture: {'; '.join(first)}{more}")
    return read_config


def _expect_same_ids(
    config: ModelConfig, ids: _Ids, read_config: ModelConfig, format: CheckpointFormat, scratch: Path, target: Path
) -> None:
    """Hold the tokenizer that a folder states to the ids that the model's own gives to fixed captions.

    What the model does to damaged text and to control tokens, and no tokenizer of the library does, is logged and not
    refused.
    """
    try:
        read = _ids(tokenizer_for(read_config))
    except ConfigError as error:
        text = str(error).replace(str(scratch), str(target))
        raise CheckpointError(f"{format.name} cannot express the tokenizer: {text}") from None
    cleans, unread = config.tokenizer.text_cleaning() != "none", config.text.reading().padding == "unreached"
    allowed_to_differ = (*(DAMAGED if cleans else ()), *(() if config.tokenizer.reads_special_tokens() else SPELLED))
    first_allowed = ""
    for caption in ids.rows:
        difference = _difference(ids, read, caption, padding=not unread)
        if difference and caption not in allowed_to_differ:
            fix = "; overrides=['tokenizer.cleaning=none'] (--set) takes what it reads" if cleans else ""
            raise CheckpointError(f"{format.name} cannot express the tokenizer: {difference}{fix}")
        first_allowed = first_allowed or difference
    if first_allowed:
        message = "%s: damaged text and control tokens in captions are read otherwise there: %s"
        _log.warning(message, target, first_allowed)


def _ids(tokenizer: Tokenizer) -> _Ids:
    """Return what a tokenizer makes of the fixed captions."""
    captions = (*PLAIN, *SPELLED, *DAMAGED)
    rows = tokenizer(captions, ROW, overflow="truncate")
    ids = cast("list[list[int]]", rows.tolist())  # pyright: ignore[reportUnknownMemberType]
    return _Ids(dict(zip(captions, ids, strict=True)), tokenizer.pad_id)


def _difference(own: _Ids, read: _Ids, caption: str, *, padding: bool) -> str:
    """Return the first id of a caption that two tokenizers do not share, in words; their padding may be left out."""
    for index, (id, other) in enumerate(zip(own.rows[caption], read.rows[caption], strict=True)):
        if id != other and (padding or (id, other) != (own.pad_id, read.pad_id)):
            return f"id {index} of {caption!r} is {id} and would be read as {other}"
    return ""


def _differences(own: Any, read: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield each key whose value is not the same on both sides, with both values."""
    if isinstance(own, Mapping) and isinstance(read, Mapping):
        pair = cast("Mapping[str, Any]", own), cast("Mapping[str, Any]", read)
        for name in dict.fromkeys((*pair[0], *pair[1])):
            yield from _differences(pair[0].get(name), pair[1].get(name), f"{key}.{name}" if key else name)
    elif own != read:
        yield key, own, read


def _converted(plan: Sequence[Conversion], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a format; each has memory of its own, which safetensors asks for."""
    converted: dict[str, Tensor] = {}
    for step in plan:
        sources = [tensors[key].detach() for key in step.sources]
        for key, tensor in zip(step.targets, step.apply(sources), strict=True):
            converted[key] = tensor.contiguous() if len(step.targets) == 1 else tensor.clone()
    return converted
