"""Files of a repository of the Hub that belong together.

A tokenizer that lacks one of its files may still load, as another one. So the list of files that were taken is pinned
beside the files themselves (`zoo_core.hub.lockfile`), once all of them are there.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo_core.errors import reason
from zoo_core.hub.client import NoAnswerError
from zoo_core.hub.files import hub_file
from zoo_core.hub.lockfile import Listing, lock_file, pin_listing, pinned, pinned_listing
from zoo_core.hub.request import HubRequest, NoSuchFileError, NotCachedError

__all__ = ["fetch_files", "fetch_listing", "hub_files"]

_log = logging.getLogger(__name__)


def hub_files(
    repo: str,
    names: Sequence[str],
    *,
    part: str,
    revision: str | None = None,
    local_files_only: bool = False,
    fix: str = "",
) -> Path:
    """Return the folder of the cache that holds those of `names` that a repository has.

    | list in the lock file | the Hub                     | what is taken                                           |
    |-----------------------|-----------------------------|---------------------------------------------------------|
    | yes                   | asked for what is not there | the files of the list, of its commit                    |
    | no                    | answers                     | what the repository has of `names`; the list is pinned  |
    | no                    | silent, or not to be asked  | what the cache holds of `names`; the log says so        |

    Args:
        repo: `organisation/name`.
        names: base names of files, of which no repository need have all.
        part: what the files make, such as `tokenizer`: another part of the same repository has a list of its own.
        revision: branch, tag or commit; the main branch where None. The commit that it stands for is pinned.
        local_files_only: never ask the Hub, as with `HF_HUB_OFFLINE=1`.
        fix: what else to do where the files are not to be had, for the error.

    Raises:
        NoSuchFileError: the repository has none of the files.
        NotCachedError: the cache has none of them, and the Hub cannot be asked.
        DownloadError: as `hub_file`; or the cache holds a file beside them that is none of the repository's.
    """
    request = HubRequest(repo, revision, local_files_only, fix)
    listing = pinned_listing(repo, revision, part)
    if listing is not None:
        return _only_listed(request, names, listing, fetch_listing(request, listing, part))
    # a file that another part of the model took from here says which commit that model is of
    pins = (pinned(repo, name, revision) for name in names)
    state = next((pin.commit for pin in pins if pin is not None), revision)
    why = request.offline_reason()
    if not why:
        try:
            commit, everything = request.list_files(state)
        except (NotCachedError, NoAnswerError) as error:
            why = f"the Hub cannot be reached ({reason(error.__cause__ or error)})"
        else:
            there = tuple(name for name in names if name in everything)
            if not there:
                message = f"the repository holds none of {', '.join(names)}"
                raise request.error(f"{message}, or {fix}" if fix else message, kind=NoSuchFileError)
            listing = Listing(commit=commit, files=there)
            return _only_listed(request, names, listing, fetch_listing(request, listing, part))
    folder = request.cached_snapshot(state, names)
    there = () if folder is None else tuple(name for name in names if (folder / name).exists())
    if folder is None or not there:
        raise request.not_cached(names[0] if len(names) == 1 else f"{names[0]} or what stands in for it", why)
    _log.warning("%s is taken as the local cache holds it; whether files are missing cannot be told offline", repo)
    return fetch_files(request, there, folder.name)


def fetch_listing(request: HubRequest, listing: Listing, part: str = "") -> Path:
    """Return the folder of the cache that holds the files of a list, which is pinned once all of them are there."""
    folder = fetch_files(request, listing.files, listing.commit)
    current = Listing(commit=folder.name, files=listing.files)  # of another commit where a history was rewritten
    if current != pinned_listing(request.repo, request.revision, part):
        pin_listing(request.repo, current, request.revision, part)
    return folder


def fetch_files(request: HubRequest, names: Sequence[str], commit: str) -> Path:
    """Return the folder of the cache that holds files of one commit, each as `hub_file` gives it."""
    options: dict[str, Any] = {"revision": request.revision, "commit": commit, "fix": request.fix}
    options["local_files_only"] = request.local_files_only
    folders = {hub_file(request.repo, name, **options).path.parent for name in names}
    if len(folders) > 1:
        raise request.error(
            f"its files come from several commits, as its history was rewritten; remove {folders.pop().parent} to have "
            "all of them anew"
        )
    return folders.pop()


def _only_listed(request: HubRequest, names: Sequence[str], listing: Listing, folder: Path) -> Path:
    """Return the folder unless it holds more of `names` than the list: whoever reads it would take them too."""
    for name in names:
        if name not in listing.files and (folder / name).exists():
            raise request.error(
                f"{folder / name} is none of the files that the repository had when they were pinned; remove it, or "
                f"take the lines of the repository out of {lock_file()}",
                file=name,
            )
    return folder
