"""Saved models, built and verified: `zoo.load` and `zoo.verify`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from zoo.building.assemble import assemble
from zoo.building.pretrained import allow_resampling
from zoo.building.source import local_folder
from zoo.catalog.architectures import load_config
from zoo.checkpoints.match import LoadOptions
from zoo.saved.manifest import differing_files
from zoo.saved.read import CONFIG, SavedModel, check_against_probe, open_saved
from zoo.saved.tokenizer_files import read_tokenizer
from zoo_core.boundary import checked
from zoo_core.errors import CheckpointError
from zoo_core.nn.processors import tell_if_slow

if TYPE_CHECKING:
    import torch

    from zoo.saved.probe import Finding
    from zoo_core.models.dual_encoder import BuiltModel, DualEncoder

__all__ = ["build_saved", "load", "verify"]

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
    saved = open_saved(local_folder(folder, local_files_only=local_files_only))
    model = build_saved(saved, device=device, dtype=dtype, towers=towers, all_bytes=verify, probe=probe)
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
    from zoo.saved.probe import Finding, check_probe, part_names  # imports PIL

    saved = open_saved(local_folder(folder))
    manifest = saved.manifest
    wrong = differing_files(saved.folder, manifest, all_bytes=True)
    names = dict.fromkeys([*manifest.files, *wrong])
    findings = [Finding(name, name not in wrong, wrong.get(name, "as saved")) for name in names]
    if wrong:
        return [*findings, *(Finding(part, None, "not looked at: files differ") for part in part_names(manifest))]
    if manifest.probe is None:
        return [
            *findings,
            *(Finding(part, None, "the model was saved without a probe") for part in part_names(manifest)),
        ]
    model = assemble(saved.config, weights=saved.weights, device=device, dtype=dtype)
    read_tokenizer(model.tokenizer, saved)
    return [*findings, *check_probe(model, manifest.probe)]


def build_saved(
    saved: SavedModel,
    overrides: Sequence[str] = (),
    *,
    all_bytes: bool = False,
    probe: bool | None = None,
    options: LoadOptions | None = None,
    **target: Any,
) -> DualEncoder:
    """Build a saved model, its config and its weights from one and the same save.

    Where another process saves to the folder meanwhile, the folder is read anew.

    Args:
        saved: the saved model.
        overrides: changes of its config.
        all_bytes: compare the weights with their digest too.
        probe: that of `load`.
        options: what is allowed beyond an exact fit.
        target: `device`, `dtype` and `towers` of `assemble`.

    Raises:
        CheckpointError: as `load`, or the folder was replaced again and again.
    """
    for _ in range(ATTEMPTS):
        try:
            saved.check_files(all_bytes=all_bytes)
            config = saved.config_with(overrides) if overrides else saved.config
            # overrides may mend what is refused without them, such as a folder of somebody else's machine
            trained = load_config(saved.folder / CONFIG) if overrides else config
            allowed = allow_resampling(options or LoadOptions(), trained, config)
            model = assemble(config, weights=saved.weights, options=allowed, overrides=overrides, **target)
        except CheckpointError:
            if not saved.was_replaced():
                raise
        else:
            if not saved.was_replaced():
                break
        saved = open_saved(saved.folder)
    else:
        raise CheckpointError(
            f"{saved.folder} was replaced {ATTEMPTS} times while it was read; let the other process finish"
        )
    before, after = (each.tokenizer.files_key() if "text" in each.towers else None for each in (trained, config))
    if before == after:  # else overrides name another tokenizer
        read_tokenizer(model.tokenizer, saved)
    if probe is not False:
        check_against_probe(model, saved, always=probe is True)
    return model
