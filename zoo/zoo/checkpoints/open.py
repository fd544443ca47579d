"""Checkpoints of any container and format, seen as ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from zoo.catalog.architectures import registry
from zoo.checkpoints.containers import open_container
from zoo_core.checkpoints import CheckpointFormat, ConvertedSource, TensorSource
from zoo_core.config import CheckpointFormatConfig, Section
from zoo_core.errors import CheckpointError, ConfigError, PluginError, ZooError, ZooWarning, warn_caller

__all__ = ["checkpoint_format", "checkpoint_formats", "open_checkpoint", "read_foreign_config"]


def checkpoint_format(name: str) -> CheckpointFormat:
    """Return the format of a name.

    Raises:
        UnknownNameError: nobody declares it.
        PluginError: its factory gives something else.
    """
    component = registry().get("checkpoint-format", name)
    config = Section(CheckpointFormatConfig).parse({"type": name}, "checkpoint format", registry())
    return cast("CheckpointFormat", component.build(config))


def checkpoint_formats() -> Iterator[tuple[str, CheckpointFormat]]:
    """Yield every format whose packages are installed, with the name of its component.

    One that cannot be made is passed over with a warning: it would spoil the weights of everybody else.
    """
    for component in registry().components("checkpoint-format"):
        if component.missing:
            continue
        try:
            format = checkpoint_format(component.qualified_name)
        except (ConfigError, PluginError) as error:
            _pass_over(error)
        else:
            yield component.qualified_name, format


def open_checkpoint(
    path: str | Path, *, weights: str | None = None, is_ours: Callable[[TensorSource], bool] | None = None
) -> TensorSource:
    """Open a checkpoint of any container and format, seen in our format; no tensor is read.

    Args:
        path: a file or folder.
        weights: which of several state dicts; see `zoo.checkpoints.containers.open_container`.
        is_ours: tells that a checkpoint is in our format, without a doubt; then no plugin is asked.

    Raises:
        CheckpointError: it holds no weights that can be read, or two formats claim it.
    """
    source = open_container(path, weights=weights)
    if is_ours is not None and is_ours(source):
        return source
    claims: dict[str, CheckpointFormat] = {}
    for name, format in checkpoint_formats():
        try:
            if format.recognises(source.entries):
                claims[name] = format
        except PluginError as error:
            _pass_over(error)
    if len(claims) > 1:
        raise CheckpointError(
            f"{source.path} is claimed by the checkpoint formats {' and '.join(claims)}; "
            "leave one out with ZOO_DISABLE_PLUGINS"
        )
    return next((ConvertedSource(source, format) for format in claims.values()), source)


def read_foreign_config(folder: str | Path) -> Mapping[str, Any] | None:
    """Return the architecture that the files of another library's folder state; None where no format knows them.

    Raises:
        ConfigError: a format knows them, but they state what cannot be built.
    """
    for _, format in checkpoint_formats():
        try:
            config = format.architecture(Path(folder))
        except PluginError as error:
            _pass_over(error)
        else:
            if config is not None:
                return config
    return None


def _pass_over(error: ZooError) -> None:
    warn_caller(f"{error}; this checkpoint format is passed over", ZooWarning)
