"""Requests to the Hugging Face Hub, and their errors.

Whatever the Hub's client raises becomes a `DownloadError` that names the repository, the file and the fix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from zoo_core.errors import DownloadError, describe, reason
from zoo_core.hub.client import ask_hub, is_commit

__all__ = ["HubRequest", "NoSuchFileError", "NotCachedError"]

T = TypeVar("T")


class NoSuchFileError(DownloadError):
    """The repository has no such file."""


class NotCachedError(DownloadError):
    """The cache does not hold the file, and the Hub was not to be asked or gave no answer."""


@dataclass(frozen=True)
class HubRequest:
    """What is asked of the Hub about a repository.

    Attributes:
        repo: `organisation/name`.
        revision: branch, tag or commit; the main branch where None.
        local_files_only: never ask the Hub, as with `HF_HUB_OFFLINE=1`.
        fix: what else to do where a file cannot be had, for the error.
    """

    repo: str
    revision: str | None = None
    local_files_only: bool = False
    fix: str = ""

    def error(
        self, message: str, *, file: str | None = None, kind: Callable[..., DownloadError] = DownloadError
    ) -> DownloadError:
        """Return an error that names repository, revision and file."""
        at = f" at revision '{self.revision}'" if self.revision else ""
        name = f"{file}: " if file else ""
        return kind(f"{self.repo}{at}: {name}{message}", repo=self.repo, revision=self.revision, file=file)

    def offline_reason(self) -> str:
        """Return why the Hub is not to be asked; empty where it may be."""
        from huggingface_hub import constants

        if self.local_files_only:
            return "local_files_only is set"
        return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""

    def not_cached(self, what: str, why: str, *, file: str | None = None) -> DownloadError:
        """Return the error of `what`, one file or several, that the cache does not hold.

        Args:
            what: the subject of the sentence.
            why: why the Hub does not help.
            file: the file, where it is one.
        """
        arguments = " ".join(filter(None, (self.repo, file, self.revision and f"--revision {self.revision}")))
        message = f"{what} is not in the local cache, and {why}; run `hf download {arguments}` where there is a network"
        return self.error(f"{message}{self._or_fix()}", file=file, kind=NotCachedError)

    def download(self, name: str, revision: str | None) -> Path:
        """Return the path of a file in the cache, downloaded if it has to be.

        Args:
            name: path of the file in the repository.
            revision: what to ask for. Where the Hub no longer has it, as when a history was rewritten, that of the
                request is asked for.
        """
        from huggingface_hub import errors, hf_hub_download  # pyright: ignore[reportUnknownVariableType]

        call: Any = partial(hf_hub_download, self.repo, name, local_files_only=self.local_files_only)
        try:
            return Path(self._ask(call, revision, file=name))
        except DownloadError:
            raise
        except errors.LocalEntryNotFoundError as error:
            unreachable = f"the Hub cannot be reached ({reason(error.__cause__ or error)})"
            raise self.not_cached("it", self.offline_reason() or unreachable, file=name) from None
        except errors.EntryNotFoundError:
            message = f"the repository has no such file{self._or_fix()}"
            raise self.error(message, file=name, kind=NoSuchFileError) from None
        except Exception as error:  # whatever its HTTP client raises: time-outs, broken streams, full disks
            message = f"the download failed ({reason(error)}); nothing was kept of it, so try again{self._or_fix()}"
            raise self.error(message, file=name) from None

    def list_files(self, revision: str | None = None) -> tuple[str, list[str]]:
        """Return the commit of a revision, and the names of its files.

        Args:
            revision: what to ask for, as in `download`.

        Raises:
            NotCachedError, NoAnswerError: the Hub gave no answer; the client's error is the cause.
            DownloadError: the Hub shows no such repository or revision.
        """
        from huggingface_hub import HfApi

        try:
            info = self._ask(partial(HfApi().model_info, self.repo), revision)
        except DownloadError:
            raise
        except Exception as error:  # whatever its HTTP client raises
            message = f"its files cannot be listed ({reason(error)}); try again"
            raise self.error(message, kind=NotCachedError) from error
        commit = info.sha or ""
        if not is_commit(commit):
            raise self.error(f"the Hub tells a commit that is none: {describe(commit)}; try again")
        return commit, sorted(sibling.rfilename for sibling in info.siblings or ())

    def cached_snapshot(self, revision: str | None = None, names: Sequence[str] | None = None) -> Path | None:
        """Return the folder of the cache that holds a revision, without asking the Hub.

        None where it holds nothing of the revision, or where its client knows that some of `names` are missing.
        """
        from huggingface_hub import errors, snapshot_download  # pyright: ignore[reportUnknownVariableType]

        allowed = None if names is None else list(names)
        call: Any = partial(snapshot_download, self.repo, local_files_only=True, allow_patterns=allowed)
        try:
            return Path(self._ask(call, revision))
        except errors.LocalEntryNotFoundError:
            return None

    def advertised_digest(self, name: str, commit: str) -> str | None:
        """Return the digest that the Hub tells of a file; None where it is not to be asked, or gives no answer."""
        from huggingface_hub import (
            get_hf_file_metadata,  # pyright: ignore[reportUnknownVariableType]
            hf_hub_url,
        )

        if self.offline_reason():
            return None
        try:
            url = hf_hub_url(self.repo, name, revision=commit)
            return ask_hub(lambda: get_hf_file_metadata(url).etag, self.repo)
        except Exception:  # whatever its HTTP client raises
            return None

    def _ask(self, call: Callable[..., T], revision: str | None, *, file: str | None = None) -> T:
        """Call the client about a revision; what it raises about the repository becomes an error of ours."""
        from huggingface_hub import errors

        try:
            return ask_hub(partial(call, revision=revision), self.repo)
        except DownloadError as error:
            raise self.error(f"{error}{self._or_fix()}", file=file, kind=type(error)) from error
        except errors.GatedRepoError:
            access = "ask for access at its page on the Hub and log in with `hf auth login`"
            raise self.error(f"the repository is gated: {access}{self._or_fix()}", file=file) from None
        except errors.RepositoryNotFoundError:
            login = "if it is gated or private, log in with `hf auth login`"
            raise self.error(f"the Hub shows no such repository; {login}{self._or_fix()}", file=file) from None
        except errors.RevisionNotFoundError:
            if revision != self.revision:
                return self._ask(call, self.revision, file=file)
            raise self.error("the repository has no such revision", file=file) from None
        except errors.HFValidationError as error:
            message = f"that is no name of a repository or revision ({reason(error)}){self._or_fix()}"
            raise self.error(message, file=file) from None

    def _or_fix(self) -> str:
        return f", or {self.fix}" if self.fix else ""
