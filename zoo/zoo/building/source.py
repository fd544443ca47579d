"""Sources: what a model or an architecture is built from.

A name, a file, a mapping, a config, a folder, an address of the Hub and `NAME:TAG` are understood by `resolve`, and
nowhere else. Everything that takes a source reads the `Source` that it returns.
"""

# ruff: noqa: PTH110, PTH112 - methods of Path raise where a name is too long, or a folder above is closed
from __future__ import annotations

import difflib
import os.path
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo.building.pretrained import ENDINGS, resolve_tag
from zoo.catalog.architectures import architectures, load_config
from zoo.hub.address import PREFIX
from zoo_core.architectures.load import check_source
from zoo_core.boundary import checked
from zoo_core.documents.extends import is_path
from zoo_core.errors import AmbiguousNameError, UnknownNameError, ZooError, describe

if TYPE_CHECKING:
    from zoo.catalog.pretrained import Pretrained
    from zoo.saved.read import SavedModel
    from zoo_core.config import ModelConfig  # for type checkers alone: what fails to be a mapping is a ConfigError

__all__ = ["Source", "config", "local_folder", "resolve", "split_tag"]

_ADDRESS = "if you mean a repository of the Hub, write 'hf-hub:{}'"


@dataclass(frozen=True, eq=False)
class Source:
    """What a caller means by a source. What is loaded of it is loaded once.

    Attributes:
        kind: `"name"` (of an architecture), `"file"` (YAML), `"mapping"`, `"config"`, `"saved"` (a folder of
            `zoo.save`) or `"foreign"` (a folder of another library that states its architecture).
        argument: what the caller wrote; of `NAME:TAG` the name.
        tag: the tag of `NAME:TAG`.
        saved: the saved model.
        folder: the folder of another library.
        foreign_config: the architecture that the files of that folder state.
    """

    kind: Literal["name", "file", "mapping", "config", "saved", "foreign"]
    argument: Any
    tag: str | None = None
    saved: SavedModel | None = None
    folder: Path | None = None
    foreign_config: Mapping[str, Any] | None = None

    @property
    def has_weights(self) -> bool:
        """Whether the source brings weights, and not only the name of an architecture."""
        return self.kind in ("saved", "foreign") or self.tag is not None

    @property
    def path(self) -> Path:
        """The file or folder that the architecture is read from."""
        if self.kind == "name":
            return architectures().find(self.argument).path
        return self.saved.folder if self.saved else self.folder or Path(self.argument)

    @cached_property
    def entry(self) -> Pretrained | None:
        """The entry of the tag; None where there is no tag.

        Raises:
            UnknownNameError: the architecture has no such tag.
        """
        return None if self.tag is None else resolve_tag(self.argument, self.tag)

    @cached_property
    def config(self) -> ModelConfig:
        """The architecture, with the preprocessing of the tag.

        Raises:
            ZooError: as `config_with`.
        """
        return self.config_with(())

    def config_with(self, overrides: Sequence[str]) -> ModelConfig:
        """Return the architecture with changes.

        Raises:
            ConfigError: the architecture is wrong.
            CheckpointError: a file of a saved model is not what was saved.
        """
        if self.saved is not None:
            self.saved.check_files()
            return self.saved.config_with(overrides) if overrides else self.saved.config
        if self.foreign_config is not None:
            return load_config(self.foreign_config, overrides, within=self.folder)
        return load_config(self.argument, overrides if self.entry is None else [*self.entry.overrides(), *overrides])


def resolve(source: object, *, tags: bool = True, local_files_only: bool = False) -> Source:
    """Return what a source means; what an address of the Hub stands for is downloaded where it has to be.

    Args:
        source: what `zoo.build` takes, or `NAME:TAG`.
        tags: whether `NAME:TAG` is taken; Python names the tag in an argument of its own.
        local_files_only: never ask the Hub, as with `HF_HUB_OFFLINE=1`.

    Raises:
        InputError: the source is of another type, or an address is malformed.
        UnknownNameError: a string is no address, no folder that holds a model, no YAML file and no architecture; the
            message says how what it looks like is written.
        AmbiguousNameError: it is an architecture, and a folder that holds a model.
        DownloadError: a file of the Hub cannot be had, or has other bytes than it should.
    """
    check_source(source)
    if isinstance(source, Mapping):
        return Source("mapping", source)
    if isinstance(source, Path) or (isinstance(source, str) and source.startswith(PREFIX)):
        path = local_folder(source, local_files_only=local_files_only)
        folder_source = _of_folder(path, source)
        if folder_source is None and os.path.isdir(path) and not is_path(path.name):
            raise UnknownNameError(f"{path}: {_unread(path)}")
        return folder_source or Source("file", path)
    if isinstance(source, str):
        return _of_folder(Path(source), source) or _of_name(source, tags)
    return Source("config", source)  # check_source lets nothing else pass


def _of_folder(folder: Path, given: str | Path) -> Source | None:
    """Return the source of a folder that holds a model; None for any other path.

    Raises:
        AmbiguousNameError: it is named as an architecture is.
    """
    if not os.path.isdir(folder):
        return None
    # Names, of which there are most, need no reader of folders.
    from zoo.checkpoints.open import read_foreign_config
    from zoo.saved.read import is_saved_model, open_saved

    if is_saved_model(folder):
        source = Source("saved", given, saved=open_saved(folder))
    elif (foreign_config := read_foreign_config(folder)) is not None:
        source = Source("foreign", given, folder=folder, foreign_config=foreign_config)
    else:
        return None
    if given == folder.name and _is_architecture(folder.name):
        owner = architectures().find(folder.name).plugin.distribution
        raise AmbiguousNameError(
            f"'{given}' is an architecture, and a model in this folder; write './{given}' for the model, "
            f"'{owner}/{given}' for the architecture"
        )
    return source


def _of_name(text: str, tags: bool) -> Source:
    """Return the source of a string that is no folder with a model."""
    if is_path(text):
        return Source("file", text)
    unknown = f"unknown architecture {describe(text)}"
    if _names_a_folder(text):  # its last part alone would find an architecture, without the weights of the folder
        raise UnknownNameError(f"{unknown}: {_suggestion_for(text)}")
    name, tag = split_tag(text)
    if tag is not None and tags:
        return Source("name", name, tag=tag)
    try:
        architectures().find(text)
    except AmbiguousNameError:
        raise
    except UnknownNameError as error:
        suggestion = _suggestion_for(text)
        misspelled = suggestion == _ADDRESS.format(text) and "did you mean" in str(error)  # ViT-B/16 has a slash too
        if suggestion and not misspelled:
            raise UnknownNameError(f"{unknown}: {suggestion}") from None
        raise _misspelled(text, tags, error) if ":" in text else error from None
    return Source("name", text)


def split_tag(text: str) -> tuple[str, str | None]:
    """Return architecture and tag of `NAME:TAG`; any other text as it is, and None."""
    name, colon, tag = text.rpartition(":")
    return (name, tag) if colon and not os.path.exists(text) and _is_architecture(name) else (text, None)


def _misspelled(text: str, tags: bool, error: UnknownNameError) -> UnknownNameError:
    """Return the error of `NAME:TAG` whose name is unknown; `error` where nothing has such a tag."""
    from zoo.catalog.pretrained import entries_of  # takes time to import, and few need it

    name, _, tag = text.rpartition(":")
    with_tag: list[str] = []
    for entry in architectures().entries:
        with suppress(ZooError):  # a stranger's broken tags are no part of this error
            if tag in entries_of(f"{entry.plugin.distribution}/{entry.name}"):
                with_tag += (entry.name, *entry.aliases)
    if not with_tag:
        return error
    near = difflib.get_close_matches(name, with_tag, n=1)
    if near:
        meant = f"'{near[0]}:{tag}'" if tags else f"zoo.build('{near[0]}', pretrained='{tag}')"
        return UnknownNameError(f"unknown architecture {describe(name)}, did you mean {meant}?")
    try:
        architectures().find(name)
    except UnknownNameError as unknown:
        return unknown
    return error


def _suggestion_for(text: str) -> str:
    """Return how what a string looks like is written; nothing where it looks like the name of an architecture."""
    start, _, rest = text.partition(":")
    name, _, tag = text.replace(":", "/").rpartition("/")
    if text.endswith(ENDINGS):
        return f"it looks like a file of weights; name its architecture too: zoo.build(NAME, pretrained='{text}')"
    if text.endswith(".json"):
        return "architecture files end in .yaml; `zoo import` writes one from the config of another library"
    if start == "local-dir":
        return f"a folder is given by its path alone, zoo.build('{rest}')"
    if start in ("hf_hub", "hf", "https", "http"):
        return f"a repository of the Hub is written {PREFIX}organisation/name"
    if os.path.isdir(text):
        return _unread(Path(text))
    if _names_a_folder(text):
        return "it looks like a path, but there is no such folder"
    if _is_architecture(name):
        return f"weights are named beside the architecture, zoo.build('{name}', pretrained='{tag}')"
    if text.count("/") > 1:
        return "it looks like a path, but there is no such folder"
    if "/" in text:
        return _ADDRESS.format(text)
    return ""


def _names_a_folder(text: str) -> bool:
    return text.startswith(("/", "./", "../", "~")) or text.endswith("/")


def _unread(folder: Path) -> str:
    from zoo.saved.unread_folders import why_unread

    reason = why_unread(folder)
    return f"it is a folder, but holds no saved model, and no model of another library with its config{reason}"


def _is_architecture(name: str) -> bool:
    """Tell whether an architecture bears a name, in any spelling."""
    try:
        architectures().find(name)
    except UnknownNameError:
        return False
    return True


def local_folder(folder: str | Path, *, local_files_only: bool = False) -> Path:
    """Return the path of a folder, or of what `hf-hub:organisation/name[@revision]` stands for, downloaded if need be.

    Raises:
        DownloadError: the repository, or a file of it, cannot be had, or has other bytes than it should.
        InputError: the address is malformed.
    """
    if isinstance(folder, str) and folder.startswith(PREFIX):
        from zoo.hub.saved_models import fetch_folder

        return fetch_folder(folder, local_files_only=local_files_only)
    return Path(folder)


@checked
def config(
    source: str | Path | Mapping[str, Any] | ModelConfig,
    overrides: Sequence[str] = (),
    *,
    local_files_only: bool = False,
) -> ModelConfig:
    """Return the validated config of an architecture.

    Args:
        source: what `zoo.build` takes: a name in any spelling, a YAML file, a mapping, a config, a folder with a model,
            or an address of the Hub.
        overrides: `"key.path=value"`, applied last.
        local_files_only: that of `zoo.build`.

    Raises:
        ConfigError: every problem of the architecture, each with its file, line and key.
        UnknownNameError: no such architecture; the nearest one is named.
        CheckpointError: a file of a saved model is not what was saved.
    """
    return resolve(source, tags=False, local_files_only=local_files_only).config_with(overrides)
