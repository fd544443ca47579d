"""What a name stands for: a folder of this machine, a repository of the Hub that holds a model, or an architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.building.pretrained import ENDINGS
from zoo.catalog.architectures import architectures, config_of_folder
from zoo.catalog.architectures import config as load_config
from zoo.checkpoints.open import stated_architecture
from zoo.hub.address import PREFIX
from zoo.saved.read import is_folder, open_folder
from zoo_core.architectures import is_path
from zoo_core.architectures.load import check_source
from zoo_core.config import ModelConfig
from zoo_core.errors import AmbiguousNameError, UnknownNameError, describe

__all__ = ["config_of", "holds_model", "is_architecture", "locate", "locate_model", "stated"]

_ADDRESS = "if you mean a repository of the Hub, write 'hf-hub:{}'"


def locate(source: Any, *, local_files_only: bool = False) -> Any:
    """Return the folder that `hf-hub:organisation/name[@revision]` stands for, and any other source as it is.

    Args:
        source: what `zoo.build` takes; what an address stands for is downloaded where it has to be.
        local_files_only: never ask the Hub, as with `HF_HUB_OFFLINE=1`.

    Raises:
        DownloadError: the repository, or a file of it, cannot be had, or has other bytes than it should.
        InputError: the address is malformed.
    """
    if isinstance(source, str) and source.startswith(PREFIX):
        from zoo.hub.saved_models import fetch_folder

        return fetch_folder(source, local_files_only=local_files_only)
    return source


def locate_model(source: Any, *, local_files_only: bool = False) -> Any:
    """Do what `locate` does for what has to name a model or its architecture.

    Raises:
        InputError: the source is of no type that does.
        UnknownNameError: a string is no address, no folder that holds a model, no YAML file and no architecture; the
            message says how what it looks like is written.
    """
    check_source(source)
    found = locate(source, local_files_only=local_files_only)
    if isinstance(found, str):
        _check_name(found)
    elif isinstance(found, Path) and found.is_dir() and not is_folder(found) and stated(found) is None:
        raise UnknownNameError(f"{found}: {_unread(found)}")
    return found


def stated(source: Any) -> Mapping[str, Any] | None:
    """Return the architecture that a folder of another library states; None for any other source."""
    return stated_architecture(source) if isinstance(source, str | Path) and Path(source).is_dir() else None


def holds_model(source: Any) -> bool:
    """Tell what brings weights of its own from what only has the name of an architecture, a folder included."""
    found = locate_model(source)
    return is_folder(found) or stated(found) is not None


def config_of(source: Any, overrides: Sequence[str] = (), *, local_files_only: bool = False) -> ModelConfig:
    """Return the architecture of whatever `zoo.build` takes.

    Raises:
        ZooError: as `zoo.build`, but for what only weights could show.
    """
    found = locate_model(source, local_files_only=local_files_only)
    if is_folder(found):
        return open_folder(Path(found), overrides)[0]
    architecture = stated(found)
    if architecture is not None:
        return config_of_folder(architecture, found, overrides)
    return load_config(found, overrides)


def _check_name(source: str) -> None:
    """Raise an `UnknownNameError` for a string that names nothing, or two things, with what its form gives away."""
    if is_path(source):
        return
    if is_folder(source) or stated(source) is not None:
        if source == Path(source).name and is_architecture(source):
            owner = architectures().find(source).plugin.distribution
            raise AmbiguousNameError(
                f"'{source}' is an architecture, and a model in this folder; write './{source}' for the model, "
                f"'{owner}/{source}' for the architecture"
            )
        return
    if _names_a_folder(source):  # its name alone would find an architecture, without the weights of the folder
        raise UnknownNameError(f"unknown architecture {describe(source)}: {_meant(source)}")
    try:
        architectures().find(source)
    except UnknownNameError as error:
        meant = _meant(source) if type(error) is UnknownNameError else ""
        slip = meant == _ADDRESS.format(source) and "did you mean" in str(error)  # ViT-B/16 has a slash too
        if slip or not meant:
            raise
        raise UnknownNameError(f"unknown architecture {describe(source)}: {meant}") from None


def _meant(source: str) -> str:
    """Return how what a string looks like is written; nothing where it looks like the name of an architecture."""
    start, _, rest = source.partition(":")
    name, _, tag = source.replace(":", "/").rpartition("/")
    if source.endswith(ENDINGS):
        return f"it looks like a file of weights; name its architecture too: zoo.build(NAME, pretrained='{source}')"
    if source.endswith(".json"):
        return "architecture files end in .yaml; `zoo import` writes one from the config of another library"
    if start == "local-dir":
        return f"a folder is given by its path alone, zoo.build('{rest}')"
    if start in ("hf_hub", "hf", "https", "http"):
        return f"a repository of the Hub is written {PREFIX}organisation/name"
    if source and Path(source).is_dir():
        return _unread(Path(source))
    if _names_a_folder(source):
        return "it looks like a path, but there is no such folder"
    if is_architecture(name):
        return f"weights are named beside the architecture, zoo.build('{name}', pretrained='{tag}')"
    if source.count("/") > 1:
        return "it looks like a path, but there is no such folder"
    if "/" in source:
        return _ADDRESS.format(source)
    return ""


def _names_a_folder(source: str) -> bool:
    return source.startswith(("/", "./", "../", "~")) or source.endswith("/")


def _unread(folder: Path) -> str:
    from zoo.saved.unread_folders import why_unread

    told = "it is a folder, but holds no saved model, and no model of another library with its config"
    return f"{told}{why_unread(folder)}"


def is_architecture(name: str) -> bool:
    """Tell whether an architecture bears a name, in any spelling."""
    try:
        architectures().find(name)
    except UnknownNameError:
        return False
    return True
