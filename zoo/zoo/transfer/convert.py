"""Models in the folders of other libraries: config, preprocessing and weights as that library reads them.

What you would not guess: a folder is read back before it takes its place. Whatever its config does not say as the
model's own does is refused by name, so that no option is lost on the way, and so is every tensor without a counterpart.
So is a tokenizer whose files give other ids there: transformers reads all those of some models with one class.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from zoo.building.source import Source, resolve
from zoo.catalog.architectures import load_config
from zoo.checkpoints.open import checkpoint_formats
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
    from zoo.building.build import build_source

    target = Path(folder)
    if to != ZOO:
        written_formats(to)
    _expect_free(target, force)
    resolved, weights = _with_weights(source, pretrained, architecture)
    return export(build_source(resolved, pretrained=weights, overrides=overrides), target, to=to, force=force)


def export(model: DualEncoder, folder: str | Path, *, to: str, force: bool = False) -> Path:
    """Write a model that is built already; the arguments and errors are those of `convert`."""
    from zoo.saved.write import check_plain, save

    target = Path(folder)
    _expect_free(target, force)
    if to == ZOO:
        return save(model, target)
    if not isinstance(getattr(model, "config", None), ModelConfig) or model.visual is None or model.text is None:
        raise InputError("a folder holds a whole model with its config; build it with zoo.build, with both towers")
    check_plain(model.state_dict())
    layout, files, plan = _fitting(model.config, _infos(model.state_dict()), written_formats(to))
    with atomic_folder(target) as scratch:
        tokenizer_files, ids = _tokenizer_files(model, to, target)
        for name, content in {**tokenizer_files, **files}.items():
            (scratch / name).write_bytes(content)
        stated = _expect_same(model.config, layout, scratch, target)
        if ids is not None:
            _expect_same_ids(model.config, ids, stated, layout, scratch, target)
        with PluginCode(maker_of(type(layout)), "its conversions failed"):
            tensors = _converted(plan, model.state_dict())
        _write_weights(tensors, scratch / layout.weights_name, target)
    return target


def libraries() -> list[str]:
    """Return the names that `to` may have."""
    return [ZOO, *sorted({layout.library for _, layout in checkpoint_formats() if layout.library})]


def written_formats(library: str) -> list[CheckpointFormat]:
    """Return the layouts of a library.

    Raises:
        UnknownNameError: no plugin writes any.
    """
    found = [layout for _, layout in checkpoint_formats() if layout.library == library]
    if not found:
        raise UnknownNameError(f"nothing is written for {describe(library)}{did_you_mean(library, libraries())}")
    return found


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
    if path is not None and path.is_file() and path.suffix.lower() not in (".yaml", ".yml"):
        raise InputError(
            f"{path} is a file of weights; name the architecture that they belong to (`zoo identify {path}` ranks them)"
        )
    resolved = resolve(source)
    if pretrained is None and not resolved.has_weights:
        raise InputError(f"{source!r} is an architecture without weights; name a tag or a file of them: pretrained=...")
    return resolved, pretrained


def _infos(tensors: Mapping[str, Tensor]) -> dict[str, TensorInfo]:
    return {key: TensorInfo(str(one.dtype).removeprefix("torch."), tuple(one.shape)) for key, one in tensors.items()}


def _fitting(
    config: ModelConfig, entries: Mapping[str, TensorInfo], layouts: Sequence[CheckpointFormat]
) -> tuple[CheckpointFormat, Mapping[str, bytes], Sequence[Conversion]]:
    """Return the first layout that can hold a model, its files and its conversions.

    Raises:
        CheckpointError: none can; what each of them says is told.
    """
    reasons: list[str] = []
    for layout in layouts:
        try:
            files = layout.files(config.data())
            plan = layout.export(entries, config.data())
            with PluginCode(maker_of(type(layout)), "its conversions cannot be read"):
                left = sorted(entries.keys() - {key for one in plan for key in one.sources})
            if left:
                raise CheckpointError(f"{layout.name} has no place for {left[0]}{_and_more(left)}")
        except CheckpointError as error:
            reasons.append(str(error))
        else:
            return layout, files, plan
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


def _expect_same(config: ModelConfig, layout: CheckpointFormat, scratch: Path, target: Path) -> ModelConfig:
    """Hold what the files of a folder state to the architecture that was written, and return it."""
    try:
        stated = layout.architecture(scratch)
        if stated is None:
            raise CheckpointError(f"{layout.name} does not know the folder that it wrote")
        found = load_config(stated)
    except ConfigError as error:
        text = str(error).replace(str(scratch), str(target))
        raise CheckpointError(f"{layout.name} cannot express the architecture: {text}") from None
    own, read = config.data(), found.data()
    if read["tokenizer"].get("name") == str(scratch.resolve()):  # its ids are compared, if it is there at all
        own, read = own | {"tokenizer": None}, read | {"tokenizer": None}
    differing = [one for one in _differences(own, read) if not _is_untold(*one)]
    told = {key: f"{key} is {describe(one)} and would be read as {describe(other)}" for key, one, other in differing}
    for key in UNSTATED:
        if key in told:
            _log.warning("%s: %s, which %s does not state", target, told.pop(key), layout.name)
    if told:
        more = f"; and {len(told) - 6} more" if len(told) > 6 else ""
        raise CheckpointError(f"{layout.name} cannot express the architecture: {'; '.join([*told.values()][:6])}{more}")
    return found


def _expect_same_ids(
    config: ModelConfig, own: _Ids, stated: ModelConfig, layout: CheckpointFormat, scratch: Path, target: Path
) -> None:
    """Hold the tokenizer that a folder states to the ids that the model's own gives to fixed captions.

    What the model does to damaged text and to control tokens, and no tokenizer over there, is said and not refused.
    """
    from zoo.building.build import tokenizer
    from zoo.transfer.hostile_captions import DAMAGED, SPELLED

    try:
        read = _ids(tokenizer(stated))
    except ConfigError as error:
        text = str(error).replace(str(scratch), str(target))
        raise CheckpointError(f"{layout.name} cannot express the tokenizer: {text}") from None
    cleans, unread = config.tokenizer.text_cleaning() != "none", config.text.reading().padding == "unreached"
    apart = (*(DAMAGED if cleans else ()), *(() if config.tokenizer.reads_special_tokens() else SPELLED))
    said = ""
    for caption in own.rows:
        difference = _difference(own, read, caption, padding=not unread)
        if difference and caption not in apart:
            fix = "; overrides=['tokenizer.cleaning=none'] (--set) takes what it reads" if cleans else ""
            raise CheckpointError(f"{layout.name} cannot express the tokenizer: {difference}{fix}")
        said = said or difference
    if said:
        _log.warning("%s: damaged text and control tokens in captions are read otherwise there: %s", target, said)


def _ids(tokenizer: Tokenizer) -> _Ids:
    """Return what a tokenizer makes of the fixed captions."""
    from zoo.transfer.hostile_captions import DAMAGED, PLAIN, SPELLED

    captions = (*PLAIN, *SPELLED, *DAMAGED)
    rows = tokenizer(captions, ROW, overflow="truncate")
    found = cast("list[list[int]]", rows.tolist())  # pyright: ignore[reportUnknownMemberType]
    return _Ids(dict(zip(captions, found, strict=True)), tokenizer.pad_id)


def _difference(own: _Ids, read: _Ids, caption: str, *, padding: bool) -> str:
    """Return the first id of a caption that two tokenizers do not share, in words; their padding may be left out."""
    for at, (one, other) in enumerate(zip(own.rows[caption], read.rows[caption], strict=True)):
        if one != other and (padding or (one, other) != (own.pad_id, read.pad_id)):
            return f"id {at} of {caption!r} is {one} and would be read as {other}"
    return ""


def _is_untold(key: str, own: object, read: object) -> bool:
    return key in UNTOLD or (key in FROM_FILES and None in (own, read))


def _differences(own: Any, read: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield each key whose value is not the same on both sides, with both values."""
    if isinstance(own, Mapping) and isinstance(read, Mapping):
        ours, theirs = cast("Mapping[str, Any]", own), cast("Mapping[str, Any]", read)
        for name in dict.fromkeys((*ours, *theirs)):
            yield from _differences(ours.get(name), theirs.get(name), f"{key}.{name}" if key else name)
    elif own != read:
        yield key, own, read


def _converted(plan: Sequence[Conversion], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a layout; each has memory of its own, which safetensors asks for."""
    made: dict[str, Tensor] = {}
    for one in plan:
        sources = [tensors[key].detach() for key in one.sources]
        for key, tensor in zip(one.targets, one.apply(sources), strict=True):
            made[key] = tensor.contiguous() if len(one.targets) == 1 else tensor.clone()
    return made


def _write_weights(tensors: dict[str, Tensor], path: Path, target: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]

    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise SaveError(f"{target} cannot be written: {error}") from error


def _and_more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
