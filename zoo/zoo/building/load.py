"""Saved models, built and verified: `zoo.load` and `zoo.verify`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from zoo.building.assemble import assemble
from zoo.building.pretrained import allow_resampling
from zoo.building.source import locate
from zoo.catalog.architectures import config as load_config
from zoo.checkpoints.match import LoadOptions
from zoo.saved.manifest import differing_files, read_origin
from zoo.saved.read import CONFIG, WEIGHTS, check_folder, expect_folder, open_folder, read_config
from zoo.saved.tokenizer_files import read_tokenizer
from zoo_core.boundary import checked
from zoo_core.errors import CheckpointError
from zoo_core.nn.processors import tell_if_slow

if TYPE_CHECKING:
    import torch

    from zoo.saved.probe import Finding
    from zoo_core.models.dual_encoder import BuiltModel, DualEncoder

__all__ = ["build_folder", "load", "verify"]

ATTEMPTS = 5
"""How often a folder is read that another process keeps replacing."""


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
    from zoo.saved.probe import PART_NAMES, Finding, check_probe

    path = Path(locate(folder))
    expect_folder(path)
    origin = read_origin(path)
    wrong = differing_files(path, origin, all_bytes=True)
    names = dict.fromkeys([*origin.files, *wrong])
    findings = [Finding(name, name not in wrong, wrong.get(name, "as saved")) for name in names]
    if wrong:
        return [*findings, *(Finding(part, None, "not looked at: files differ") for part in PART_NAMES)]
    if origin.probe is None:
        return [*findings, *(Finding(part, None, "the model was saved without a probe") for part in PART_NAMES)]
    model = assemble(read_config(path), weights=path / WEIGHTS, device=device, dtype=dtype)
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
    for _ in range(ATTEMPTS):
        expect_folder(folder)
        before = read_origin(folder).digest
        try:
            config, weights = open_folder(folder, overrides, all_bytes=all_bytes)
            saved = load_config(folder / CONFIG) if overrides else config
            allowed = allow_resampling(options or LoadOptions(), saved, config)
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
