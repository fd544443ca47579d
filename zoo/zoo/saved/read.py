"""Reading of saved models, and checks that they are unchanged.

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
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo._version import __version__
from zoo.catalog.architectures import load_config, registry
from zoo.saved.manifest import ORIGIN, differing_files, read_origin
from zoo_core.config import ModelConfig
from zoo_core.errors import CheckpointError, ConfigError, Problem
from zoo_core.files.atomic_folder import restore
from zoo_core.files.user_folders import user_cache_folder

if TYPE_CHECKING:
    from zoo.saved.origin import Origin
    from zoo_core.models.dual_encoder import DualEncoder

__all__ = ["CONFIG", "README", "WEIGHTS", "SavedModel", "check_against_probe", "is_saved_model", "open_saved"]

CONFIG = "config.yaml"
WEIGHTS = "model.safetensors"
README = "README.md"

_log = logging.getLogger(__name__)


def is_saved_model(source: Any) -> bool:
    """Tell whether `source` is the path of a saved model."""
    if not isinstance(source, str | Path):
        return False
    # Path.is_file() raises where a name is too long, or a folder above is closed
    return all(os.path.isfile(os.path.join(source, name)) for name in (CONFIG, WEIGHTS))  # noqa: PTH113, PTH118


@dataclass(frozen=True, eq=False)
class SavedModel:
    """A folder that `zoo.save` wrote; its `zoo.json` and its config are read once.

    Another process may save to the folder meanwhile, which `was_replaced` tells.
    """

    folder: Path
    _identity: tuple[int, ...] | None

    @property
    def weights(self) -> Path:
        """The path of the weights."""
        return self.folder / WEIGHTS

    @cached_property
    def manifest(self) -> Origin:
        """What `zoo.json` says."""
        return read_origin(self.folder)

    @cached_property
    def config(self) -> ModelConfig:
        """The config as it was saved."""
        return self.config_with(())

    def config_with(self, overrides: Sequence[str]) -> ModelConfig:
        """Return the config with changes; keys that were not there when it was saved have the meaning of then.

        Raises:
            ConfigError: its parts cannot be had here; packages that are not installed are named.
        """
        path = self.folder / CONFIG
        try:
            config = load_config(path, overrides, within=self.folder)
            older = [
                f"{name}.{key}={json.dumps(value)}"
                for name, section in config.sections()
                for key, value in section.before.items()
                if key not in section.model_fields_set
            ]
            return load_config(path, [*older, *overrides], within=self.folder) if older else config
        except ConfigError as error:
            installed = {plugin.distribution for plugin in registry().plugins}
            lacking = [
                Problem(f"the {part} is not installed here", source=str(self.folder))
                for part in self.manifest.parts.values()  # such as `loss 'x' of acme 1.0`
                if part.rpartition(" of ")[2].partition(" ")[0] not in installed
            ]
            raise ConfigError([*error.problems, *lacking]) from None

    def check_files(self, *, all_bytes: bool = False) -> None:
        """Raise a `CheckpointError` where a file is not what was saved; with `all_bytes` large files are read too."""
        wrong = differing_files(self.folder, self.manifest, all_bytes=all_bytes)
        if wrong:
            differences = "; ".join(f"{name} {what}" for name, what in wrong.items())
            raise CheckpointError(
                f"{self.folder} is not the model that was saved: {differences}. Save it again, or build from its files "
                f"on purpose: zoo.build({str(self.folder / CONFIG)!r}, pretrained={str(self.weights)!r})"
            )

    def was_replaced(self) -> bool:
        """Tell whether another process saved to the folder since it was opened."""
        return _identity(self.folder) != self._identity


def open_saved(folder: Path) -> SavedModel:
    """Return the saved model of a folder, of which nothing is read yet.

    A folder that a killed process moved aside is put back first.

    Raises:
        CheckpointError: it is no saved model.
    """
    restore(folder)
    identity = _identity(folder)
    if not is_saved_model(folder):
        raise CheckpointError(f"{folder} is no saved model: expected a folder with {CONFIG} and {WEIGHTS}")
    return SavedModel(folder, identity)


def _identity(folder: Path) -> tuple[int, ...] | None:
    """Return what tells the `zoo.json` of one save from that of the next without reading it."""
    try:
        info = (folder / ORIGIN).stat()
    except OSError:  # whoever reads it says so
        return None
    return info.st_dev, info.st_ino, info.st_mtime_ns, info.st_size


def check_against_probe(model: DualEncoder, saved: SavedModel, *, always: bool = False) -> None:
    """Check a model against the probe of its folder: always, or where this environment has not seen it yet.

    Raises:
        CheckpointError: a part gives something else than what was recorded.
    """
    from zoo.saved.probe import check_probe, environment  # imports PIL

    probe, folder = saved.manifest.probe, saved.folder
    if probe is None:
        if always:
            raise CheckpointError(f"{folder} was saved without a probe; save it again to have one")
        return
    left_out = tuple(name not in model.towers for name in model.modalities)
    here = environment(model) | {"zoo": __version__, "towers": str(left_out)}
    # an empty file says that this model gave its features in this environment
    key = hashlib.sha256(json.dumps([saved.manifest.digest, here], sort_keys=True).encode()).hexdigest()
    seen = user_cache_folder() / "probed" / key
    if not always and os.path.exists(seen):  # noqa: PTH110 - Path.exists() raises where the user's folder is closed
        return
    findings = check_probe(model, probe)
    for finding in findings:
        _log.info("%s: %s: %s", folder, finding.part, finding.detail)
    wrong = [finding for finding in findings if finding.ok is False]
    if wrong:
        differences = "; ".join(f"{finding.part}: {finding.detail}" for finding in wrong)
        there = probe.environment.data()
        raise CheckpointError(
            f"{folder} does not give here what it gave where it was saved: {differences}. Here: {here}; there: "
            f"{there}. zoo.load(..., probe=False) loads it all the same"
        )
    if all(finding.ok for finding in findings):
        with suppress(OSError):  # a user without a folder of his own has it checked each time
            seen.parent.mkdir(parents=True, exist_ok=True)
            seen.touch()
