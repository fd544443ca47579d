"""Saved models, read: a folder that holds all that `zoo.build` needs, and tells whether it is still what was saved.

    config.yaml         the resolved architecture
    model.safetensors   the weights
    tokenizer/          what the tokenizer is made of, where that does not ship with its plugin
    zoo.json            versions, the plugins that wrote it, a digest of every file, and the probe
    README.md           what it is, for people and the Hub; no part of the digest

Configs and other small files are compared with their digest on every load, weights on request. The probe is checked on
request, and once in each new environment: another version of torch, another device or dtype.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo._version import __version__
from zoo.catalog.architectures import config_of_folder, registry
from zoo.saved.manifest import differing_files, read_origin
from zoo_core.config import ComponentConfig, ModelConfig
from zoo_core.errors import CheckpointError, ConfigError, Problem
from zoo_core.files.atomic_folder import restore
from zoo_core.files.user_folder import user_folder

if TYPE_CHECKING:
    from zoo.saved.origin import Origin
    from zoo_core.models.dual_encoder import DualEncoder

__all__ = ["CONFIG", "README", "WEIGHTS", "check_folder", "expect_folder", "is_folder", "open_folder", "read_config"]

CONFIG = "config.yaml"
WEIGHTS = "model.safetensors"
README = "README.md"

_log = logging.getLogger(__name__)


def is_folder(source: Any) -> bool:
    """Tell whether `source` is the path of a saved model."""
    return isinstance(source, str | Path) and (Path(source) / CONFIG).is_file() and (Path(source) / WEIGHTS).is_file()


def open_folder(folder: Path, overrides: Sequence[str] = (), *, all_bytes: bool = False) -> tuple[ModelConfig, Path]:
    """Return the config of a saved model and the path of its weights, if they are what was saved.

    Raises:
        CheckpointError: it is no saved model, or a file differs; weights are read whole only with `all_bytes`.
        ConfigError: its parts cannot be had here; packages that are not installed are named.
    """
    expect_folder(folder)
    origin = read_origin(folder)
    wrong = differing_files(folder, origin, all_bytes=all_bytes)
    if wrong:
        told = "; ".join(f"{name} {what}" for name, what in wrong.items())
        raise CheckpointError(
            f"{folder} is not the model that was saved: {told}. Save it again, or build from its files on purpose: "
            f"zoo.build({str(folder / CONFIG)!r}, pretrained={str(folder / WEIGHTS)!r})"
        )
    try:
        return read_config(folder, overrides), folder / WEIGHTS
    except ConfigError as error:
        lacking = [Problem(f"the {part} is not installed here", source=str(folder)) for part in _lacking(origin)]
        raise ConfigError([*error.problems, *lacking]) from None


def read_config(folder: Path, overrides: Sequence[str] = ()) -> ModelConfig:
    """Return the config of a saved model; keys that were not there when it was saved have the meaning of then."""
    config = config_of_folder(folder / CONFIG, folder, overrides)
    older = [
        f"{name}.{key}={json.dumps(value)}"
        for name in type(config).model_fields
        if isinstance(section := getattr(config, name), ComponentConfig)
        for key, value in section.before.items()
        if key not in section.model_fields_set
    ]
    return config_of_folder(folder / CONFIG, folder, [*older, *overrides]) if older else config


def _lacking(origin: Origin) -> list[str]:
    """Return the parts of a saved model whose distribution is not installed, such as `loss 'x' of acme 1.0`."""
    installed = {plugin.distribution for plugin in registry().plugins}
    return [part for part in origin.parts.values() if part.rpartition(" of ")[2].partition(" ")[0] not in installed]


def check_folder(model: DualEncoder, folder: Path, *, always: bool = False) -> None:
    """Check a model against the probe of its folder: always, or where this environment has not seen it yet.

    Raises:
        CheckpointError: a part gives something else than what was recorded.
    """
    from zoo.saved.probe import check_probe, environment

    origin = read_origin(folder)
    if origin.probe is None:
        if always:
            raise CheckpointError(f"{folder} was saved without a probe; save it again to have one")
        return
    here = environment(model) | {"zoo": __version__, "towers": str((model.visual is None, model.text is None))}
    seen = _mark(origin.digest, here)
    if not always and os.path.exists(seen):  # noqa: PTH110 - Path.exists() raises where the user's folder is closed
        return
    findings = check_probe(model, origin.probe)
    for one in findings:
        _log.info("%s: %s: %s", folder, one.part, one.detail)
    wrong = [one for one in findings if one.ok is False]
    if wrong:
        told = "; ".join(f"{one.part}: {one.detail}" for one in wrong)
        there = origin.probe.environment.data()
        raise CheckpointError(
            f"{folder} does not give here what it gave where it was saved: {told}. Here: {here}; there: {there}. "
            "zoo.load(..., probe=False) loads it all the same"
        )
    if all(one.ok for one in findings):
        with suppress(OSError):  # a user without a folder of his own has it checked each time
            seen.parent.mkdir(parents=True, exist_ok=True)
            seen.touch()


def expect_folder(folder: Path) -> None:
    """Put back what a killed process moved aside, and raise a `CheckpointError` where a path is no saved model."""
    restore(folder)
    if not is_folder(folder):
        raise CheckpointError(f"{folder} is no saved model: expected a folder with {CONFIG} and {WEIGHTS}")


def _mark(digest: str, here: dict[str, str]) -> Path:
    """Return the empty file that says that this model gave its features in this environment."""
    key = hashlib.sha256(json.dumps([digest, here], sort_keys=True).encode()).hexdigest()
    return user_folder() / "probed" / key
