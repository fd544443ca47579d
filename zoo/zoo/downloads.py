"""Weights of the Hugging Face Hub, through its own client: its cache, its `HF_ENDPOINT`, its offline mode."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zoo_core.errors import CheckpointError

if TYPE_CHECKING:
    from zoo.pretrained_entries import HubWeights

__all__ = ["fetch_weights"]

_USUAL = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
"""Names under which repositories of open_clip hold safetensors weights."""


def fetch_weights(source: HubWeights) -> Path:
    """Return the file in the local cache of the Hub, downloaded if it is not there yet.

    Raises:
        CheckpointError: there is no such repository, revision or file, or no way to reach it; the line says what to do.
    """
    from huggingface_hub import hf_hub_download  # pyright: ignore[reportUnknownVariableType]
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    at = f" at revision '{source.revision}'" if source.revision else ""
    told = f"{source.repo}{at}"
    names = _safetensors_names(source.file)
    unreachable: LocalEntryNotFoundError | None = None
    for name in names:
        try:
            return Path(hf_hub_download(source.repo, name, revision=source.revision))
        except RepositoryNotFoundError:
            raise CheckpointError(
                f"{told}: the Hub shows no such repository; if it is gated or private, log in with `hf auth login`"
            ) from None
        except RevisionNotFoundError:
            raise CheckpointError(f"{told}: the repository has no such revision") from None
        except LocalEntryNotFoundError as error:  # the cache may hold it under the next name
            unreachable = unreachable or error
        except EntryNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{told}: {name} cannot be downloaded: {_first_line(error)}") from None
    if unreachable is not None:
        raise CheckpointError(f"{told}: {_unreachable(source, names[0], unreachable)}")
    raise CheckpointError(
        f"{told}: the repository holds none of {', '.join(names)}, and zoo reads no pickles; convert the weights to "
        "safetensors and give the file: pretrained='file.safetensors'"
    )


def _safetensors_names(file: str | None) -> tuple[str, ...]:
    """Return what to look for: safetensors weights stand beside the pickles that tables of weights name."""
    if file is None:
        return _USUAL
    own = Path(file).with_suffix(".safetensors").name
    return tuple(dict.fromkeys((own, "model.safetensors", *_USUAL)))


def _unreachable(source: HubWeights, name: str, error: Exception) -> str:
    from huggingface_hub import constants

    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"the Hub cannot be reached ({_first_line(error)})"
    revision = f" --revision {source.revision}" if source.revision else ""
    return (
        f"{name} is not in the local cache, and {why}; run `hf download {source.repo} {name}{revision}` where there is "
        "a network, or give a file: pretrained='file.safetensors'"
    )


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
