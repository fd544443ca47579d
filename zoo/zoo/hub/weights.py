"""Files of weights in repositories of the Hugging Face Hub.

Tables of weights name pickles, and most repositories hold the same weights as safetensors beside them. Those are
looked for first, under the few names that the field uses. Where there are none, the file that is named is taken, and
of a pickle nothing but tensors is read (`zoo.checkpoints.containers`).
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from zoo_core.errors import DownloadError
from zoo_core.hub.files import HubFile, NoSuchFileError, NotCachedError, hub_file
from zoo_core.hub.lockfile import pinned

if TYPE_CHECKING:
    from zoo.catalog.pretrained import HubWeights

__all__ = ["fetch_weights"]

_USUAL = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
"""Names under which repositories of open_clip hold safetensors weights."""
_USUAL_PICKLE = "open_clip_pytorch_model.bin"
_FIX = "give a file: pretrained='file.safetensors'"


def fetch_weights(
    source: HubWeights, sha256: str | None = None, *, local_files_only: bool = False, verify: bool = False
) -> HubFile:
    """Return the file of weights of a repository, from the local cache or downloaded into it.

    Args:
        source: the repository; a file that was downloaded from it once is taken again.
        sha256: digest that the file has to have; that of its pin holds too.
        local_files_only: never ask the Hub.
        verify: read the file for its digest even where it was read before.

    Raises:
        DownloadError: it cannot be had, or has other bytes; the repository, the file and what to do are named.
    """
    names = (*_USUAL, _USUAL_PICKLE)
    if source.file is not None:  # it comes last, unless it is safetensors
        file = PurePosixPath(source.file)
        names = tuple(dict.fromkeys((file.with_suffix(".safetensors").name, "model.safetensors", *_USUAL, source.file)))
    options: dict[str, Any] = {"revision": source.revision, "local_files_only": local_files_only, "verify": verify}
    pinned_names = [name for name in names if pinned(source.repo, name, source.revision)]
    not_cached: NotCachedError | None = None
    for name in pinned_names or names:
        try:
            return hub_file(source.repo, name, sha256=sha256, fix=_FIX, **options)
        except NoSuchFileError:
            continue
        except NotCachedError as error:  # the cache may hold it under the next name
            not_cached = not_cached or error
    if not_cached is not None:
        raise not_cached
    raise DownloadError(
        f"{source.repo}: the repository holds none of {', '.join(names)}; {_FIX}",
        repo=source.repo,
        revision=source.revision,
    )
