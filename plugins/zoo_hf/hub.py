"""Files of the Hugging Face Hub: a folder of the local cache that holds them, or one line that says what to do.

What you would not guess: every part of this plugin first turns its name into a folder, and then loads from that
folder alone. So there is one place that may ask the network, and what transformers looks up beside the files that
are wanted (chat templates, adapters, model cards) is never asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from zoo_core.errors import ConfigError, Problem, reason
from zoo_core.hub.client import ask_hub, repository_cache
from zoo_hf.config import HfSource, is_folder

__all__ = ["files_of"]


def files_of(source: HfSource, files: Sequence[str], key: str) -> Path:
    """Return a folder that holds at least one of `files`.

    Args:
        source: a config that has a name.
        files: names of files; those that the repository has are downloaded into the cache of huggingface_hub.
        key: where the source stands in the architecture, for errors.

    Raises:
        ConfigError: there is no such folder, repository, revision or file, or no way to reach it; the line names
            the repository, the file and what to do.
    """
    name = source.name or ""
    folder = Path(name).expanduser() if is_folder(name) else _snapshot(source, files, key)
    if not any((folder / file).is_file() for file in files):
        what = "there is no such folder" if not folder.is_dir() else f"it holds none of {', '.join(files)}"
        raise ConfigError(Problem(f"{_told(source)}: {what}", f"{key}.name"))
    return folder


def _snapshot(source: HfSource, files: Sequence[str], key: str) -> Path:
    """Return the folder of the cache that holds a repository's files, those of `files` downloaded into it."""
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    told = _told(source)
    try:
        if source.local_files_only or constants.HF_HUB_OFFLINE:
            return _cached(source)
        return _downloaded(source, files)
    except RepositoryNotFoundError:
        raise ConfigError(
            Problem(f"{told}: the Hub shows no such repository; a folder is written ./{source.name}", f"{key}.name")
        ) from None
    except RevisionNotFoundError:
        raise ConfigError(Problem(f"{told}: the repository has no such revision", f"{key}.revision")) from None
    except LocalEntryNotFoundError as error:
        raise ConfigError(Problem(f"{told}: {_not_cached(source, files, error)}", f"{key}.name")) from None
    except (OSError, ValueError) as error:
        raise ConfigError(Problem(f"{told}: {reason(error)}", f"{key}.name")) from None


def _cached(source: HfSource) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(source.name or "", revision=source.revision, local_files_only=True))


def _downloaded(source: HfSource, files: Sequence[str]) -> Path:
    """Download one file after the other: the client's own download of several reads answers in threads of its own."""
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    repo = source.name or ""
    try:
        info = ask_hub(partial(HfApi().model_info, repo, revision=source.revision), repo)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except Exception as error:  # whatever its HTTP client raises where there is no network
        try:
            return _cached(source)
        except LocalEntryNotFoundError as lacking:
            raise lacking from error
    there = {one.rfilename for one in info.siblings or ()}
    paths = [
        ask_hub(partial(hf_hub_download, repo, name, revision=source.revision), repo) for name in files if name in there
    ]
    folders = {Path(path).parent for path in paths}
    if len(folders) > 1:
        raise OSError("the repository was changed while its files were downloaded; try again")
    return folders.pop() if folders else repository_cache(repo) / "snapshots" / str(info.sha)


def _not_cached(source: HfSource, files: Sequence[str], error: Exception) -> str:
    from huggingface_hub import constants

    if source.local_files_only or constants.HF_HUB_OFFLINE:
        why = "local_files_only is set" if source.local_files_only else "HF_HUB_OFFLINE is set"
    else:
        why = f"the Hub cannot be reached ({reason(error.__cause__ or error)})"
    at = f" --revision {source.revision}" if source.revision else ""
    more = "" if len(files) == 1 else " or what stands in for it"
    return (
        f"{files[0]}{more} is not in the local cache, and {why}; run `hf download {source.name}{at}` where there is "
        f"a network, or name a folder that holds it"
    )


def _told(source: HfSource) -> str:
    at = f" at revision '{source.revision}'" if source.revision else ""
    return f"'{source.name}'{at}"
