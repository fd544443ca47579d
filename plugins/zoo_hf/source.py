"""Sources of files: a repository of the Hub, or a folder.

Every part of this plugin first turns its source into a folder, and then loads from that folder alone. So what
transformers looks up beside the files that are needed (chat templates, adapters, model cards) is never downloaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from zoo_core.config import Config
from zoo_core.errors import ConfigError, DownloadError, Problem
from zoo_core.hub.repository import hub_files

__all__ = ["HfSource", "Name"]

Name = Annotated[str, Field(min_length=1)]


class HfSource(Config):
    """Where files of the Hugging Face ecosystem come from."""

    name: Name | None = None
    """A repository of the Hub, such as `roberta-base`, or a folder: one that begins with `.`, `/` or `~`."""
    revision: Name | None = None
    """Branch, tag or commit of the repository; its main branch where null."""
    local_files_only: bool = False
    """Take the files from the local cache and never ask the Hub, as with HF_HUB_OFFLINE=1."""

    def folder(self) -> Path | None:
        """Return the folder that is named, whatever the current folder holds; None where it names a repository."""
        if self.name is None or not self.name.startswith((".", "/", "~")):
            return None
        return Path(self.name).expanduser()

    def fetch(self, files: Sequence[str], section: str) -> Path:
        """Return a folder that holds at least one of `files`; those of a repository are pinned (`zoo_core.hub`).

        Args:
            files: base names; those that the repository has are downloaded into the cache.
            section: where the source stands in the architecture, for errors.

        Raises:
            ConfigError: there is no such folder, or it holds none of the files.
            DownloadError: the files cannot be had from the Hub, or are not what they were at first.
        """
        if folder := self.folder():
            if not any((folder / file).is_file() for file in files):
                what = f"it holds none of {', '.join(files)}" if folder.is_dir() else "there is no such folder"
                raise ConfigError(Problem(f"'{self.name}': {what}", f"{section}.name"))
            return folder
        assert self.name is not None
        options: Any = {"part": section, "revision": self.revision, "local_files_only": self.local_files_only}
        fix = f"name a folder that holds it, such as ./{self.name.rpartition('/')[2]}"
        try:
            return hub_files(self.name, files, **options, fix=fix)
        except DownloadError as error:
            message = f"{section}.name: {error}"
            raise type(error)(message, repo=error.repo, revision=error.revision, file=error.file) from None

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold the revision to a repository."""
        yield from super().rules()
        if self.revision is not None and (self.name is None or self.folder()):
            yield "revision", f"only a repository of the Hub has revisions, found name {self.name!r}"

    def local_paths(self) -> Iterator[tuple[str, str]]:
        """Yield the name, where it is that of a folder."""
        if self.name is not None and self.folder():
            yield "name", self.name
