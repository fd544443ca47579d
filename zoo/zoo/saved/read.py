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
from typing import TYPE_CHECKING, Any, cast

import zoo
from zoo.catalog.architectures import config as load_config
from zoo.catalog.architectures import config_of_folder, registry
from zoo.saved.manifest import differing_files, read_origin
from zoo.saved.tokenizer_files import read_tokenizer
from zoo_core.boundary import checked
from zoo_core.config import ComponentConfig, ModelConfig
from zoo_core.errors import CheckpointError, ConfigError, Problem
from zoo_core.files.atomic_folder import restore
from zoo_core.files.user_folder import user_folder

if TYPE_CHECKING:
    import torch

    from zoo.checkpoints.match import LoadOptions
    from zoo.saved.origin import Origin
    from zoo.saved.probe import Finding
    from zoo_core.models.dual_encoder import BuiltModel, DualEncoder

__all__ = ["CONFIG", "README", "WEIGHTS", "build_folder", "check_folder", "is_folder", "load", "open_folder", "verify"]

CONFIG = "config.yaml"
WEIGHTS = "model.safetensors"
README = "README.md"
ATTEMPTS = 5
"""How often a folder is read that another process keeps replacing."""

_log = logging.getLogger(__name__)


@checked
def load(
    folder: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    towers: Sequence[str] | None = None,
    verify: bool = False,
    probe: bool | None = None,
    local_files_only: bool = False,
) -> BuiltModel:
    """Build the model of a folder that `zoo.save` wrote.

    Args:
        folder: the saved model, or `"hf-hub:organisation/name[@revision]"`, a repository that holds one.
        device, dtype, towers, local_files_only: those of `zoo.build`.
        verify: compare the weights with their digest too, which reads every byte.
        probe: check that the model's features of the probe are those recorded; None does so the first time that this
            model is loaded in an environment (versions, device, dtype), and remembers it for the user.

    Raises:
        CheckpointError: it is no such folder, a file is not what was saved, the weights do not fit the config, or the
            probe gives other features; the part that differs is named.
        DownloadError: a file of the Hub cannot be had, or has other bytes than it should.
    """
    from zoo.building.source import locate
    from zoo_core.nn.processors import tell_if_slow

    path = Path(locate(folder, local_files_only=local_files_only))
    model = build_folder(path, device=device, dtype=dtype, towers=towers, all_bytes=verify)
    if probe is not False:
        check_folder(model, path, always=probe is True)
    tell_if_slow(model)
    return cast("BuiltModel", model)


@checked
def verify(
    folder: str | Path, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> list[Finding]:
    """Compare every file of a saved model with its digest, and the model with its probe.

    Args:
        folder: the saved model, or `"hf-hub:organisation/name[@revision]"`.
        device, dtype: what the probe is computed on and in; those of `zoo.build`.

    Returns:
        what was found for each file and each part of the model, in order. A part that could not be looked at has
        `ok` None. Where files differ, the model is not built.

    Raises:
        CheckpointError: it is no saved model, or its `zoo.json` is damaged.
    """
    from zoo.building.build import assemble
    from zoo.building.source import locate
    from zoo.saved.probe import PART_NAMES, Finding, check_probe

    path = Path(locate(folder))
    _expect_folder(path)
    origin = read_origin(path)
    wrong = differing_files(path, origin, all_bytes=True)
    names = dict.fromkeys([*origin.files, *wrong])
    findings = [Finding(name, name not in wrong, wrong.get(name, "as saved")) for name in names]
    if wrong:
        return [*findings, *(Finding(part, None, "not looked at: files differ") for part in PART_NAMES)]
    if origin.probe is None:
        return [*findings, *(Finding(part, None, "the model was saved without a probe") for part in PART_NAMES)]
    model = assemble(_config(path), weights=path / WEIGHTS, device=device, dtype=dtype)
    read_tokenizer(model.tokenizer, path)
    return [*findings, *check_probe(model, origin.probe)]


def build_folder(
    folder: Path,
    overrides: Sequence[str] = (),
    *,
    all_bytes: bool = False,
    options: LoadOptions | None = None,
    **target: Any,
) -> DualEncoder:
    """Build the model of a folder, its config and its weights from one and the same save.

    Another process may save to the folder meanwhile: then `zoo.json` is another one afterwards, and it is read anew.

    Raises:
        CheckpointError: as `open_folder`, or the folder was replaced again and again.
    """
    from zoo.building.build import assemble, sized
    from zoo.checkpoints.match import LoadOptions

    for _ in range(ATTEMPTS):
        _expect_folder(folder)
        before = read_origin(folder).digest
        try:
            config, weights = open_folder(folder, overrides, all_bytes=all_bytes)
            saved = load_config(folder / CONFIG) if overrides else config
            allowed = sized(options or LoadOptions(), saved, config)
            model = assemble(config, weights=weights, options=allowed, overrides=overrides, **target)
        except CheckpointError:
            if read_origin(folder).digest == before:
                raise
            continue
        if read_origin(folder).digest == before:
            if config.tokenizer.files_key() == saved.tokenizer.files_key():  # else another one is meant
                read_tokenizer(model.tokenizer, folder)
            return model
    raise CheckpointError(f"{folder} was replaced {ATTEMPTS} times while it was read; let the other process finish")


def is_folder(source: Any) -> bool:
    """Tell whether `source` is the path of a saved model."""
    return isinstance(source, str | Path) and (Path(source) / CONFIG).is_file() and (Path(source) / WEIGHTS).is_file()


def open_folder(folder: Path, overrides: Sequence[str] = (), *, all_bytes: bool = False) -> tuple[ModelConfig, Path]:
    """Return the config of a saved model and the path of its weights, if they are what was saved.

    Raises:
        CheckpointError: it is no saved model, or a file differs; weights are read whole only with `all_bytes`.
        ConfigError: its parts cannot be had here; packages that are not installed are named.
    """
    _expect_folder(folder)
    origin = read_origin(folder)
    wrong = differing_files(folder, origin, all_bytes=all_bytes)
    if wrong:
        told = "; ".join(f"{name} {what}" for name, what in wrong.items())
        raise CheckpointError(
            f"{folder} is not the model that was saved: {told}. Save it again, or build from its files on purpose: "
            f"zoo.build({str(folder / CONFIG)!r}, pretrained={str(folder / WEIGHTS)!r})"
        )
    try:
        return _config(folder, overrides), folder / WEIGHTS
    except ConfigError as error:
        lacking = [Problem(f"the {part} is not installed here", source=str(folder)) for part in _lacking(origin)]
        raise ConfigError([*error.problems, *lacking]) from None


def _config(folder: Path, overrides: Sequence[str] = ()) -> ModelConfig:
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
    here = environment(model) | {"zoo": zoo.__version__, "towers": str((model.visual is None, model.text is None))}
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


def _expect_folder(folder: Path) -> None:
    restore(folder)
    if not is_folder(folder):
        raise CheckpointError(f"{folder} is no saved model: expected a folder with {CONFIG} and {WEIGHTS}")


def _mark(digest: str, here: dict[str, str]) -> Path:
    """Return the empty file that says that this model gave its features in this environment."""
    key = hashlib.sha256(json.dumps([digest, here], sort_keys=True).encode()).hexdigest()
    return user_folder() / "probed" / key
