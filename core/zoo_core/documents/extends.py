"""Documents that extend others by name or path."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

from zoo_core.documents.document import Document
from zoo_core.documents.merge import merge
from zoo_core.documents.yaml_reader import read_document
from zoo_core.errors import ConfigError, ZooError, describe

__all__ = ["MAX_EXTENDS", "ExtendingReader", "is_path", "leads_inside"]

MAX_EXTENDS = 16


class ExtendingReader:
    """Reads YAML files and lays each over the one that it extends; a file that did not change is read once.

    Args:
        what: what a document is, such as `"an architecture"`, for errors.
        find: returns the file of a name, and the distribution that it came with. It is also given the distribution of
            the document that names it, None for a user's own. It raises a `ZooError` for a name of nothing.
        qualify: changes a document of a distribution before anything else is done with it.
    """

    def __init__(
        self,
        what: str,
        find: Callable[[str, str | None], tuple[Path, str]],
        qualify: Callable[[Document, str], None] = lambda document, owner: None,
    ) -> None:
        self._what = what
        self._find = find
        self._qualify = qualify
        self._documents: dict[Path, tuple[tuple[int, int, int], Document]] = {}

    def read(
        self, path: Path, owner: str | None = None, *, within: Path | None = None, below: tuple[Path, ...] = ()
    ) -> Document:
        """Return the content of a file, laid over what it extends.

        Args:
            path: the file.
            owner: the distribution that it came with; None for a user's own.
            within: the folder that it may name files of; any where None.
            below: the files that led here, each extending the next.

        Raises:
            ConfigError: it cannot be read, or what it extends cannot.
        """
        document = self._fresh(path)
        if owner is not None:
            self._qualify(document, owner)
        return self.extended(document, path, owner, within=within, below=(*below, path.resolve()))

    def extended(
        self,
        document: Document,
        path: Path = Path(),
        owner: str | None = None,
        *,
        within: Path | None = None,
        below: tuple[Path, ...] = (),
    ) -> Document:
        """Lay a document over the one that it extends; the arguments are those of `read`.

        Raises:
            ConfigError: it extends what is not there, what it may not name, or itself.
        """
        if "extends" not in document.data:
            return document
        mark = document.mark(("extends",))
        base = document.data.pop("extends")
        if not isinstance(base, str):
            raise ConfigError(
                mark.problem(f"expected the name of {self._what} or a file, found {describe(base)}", "extends")
            )
        if not is_path(base):
            within = None  # the files of an installed plugin
        elif within is not None and not _names_inside(within, base):
            what = f"names a file outside of {within}: {describe(base)}; allowed: {self._what}, or a file in it"
            raise ConfigError(mark.problem(what, "extends"))
        target = path.parent / base
        if not is_path(base):
            try:
                target, owner = self._find(base, owner)
            except ZooError as error:
                raise ConfigError(mark.problem(str(error), "extends")) from None
        if target.resolve() in below or len(below) >= MAX_EXTENDS:
            chain = " -> ".join(file.name for file in (*below, target))
            what = "goes round in a circle" if target.resolve() in below else "is too long"
            raise ConfigError(mark.problem(f"the chain {chain} {what}", "extends"))
        return merge(self.read(target, owner, within=within, below=below), document)

    def _fresh(self, path: Path) -> Document:
        """Return what a file holds now, as a copy that may be changed."""
        try:
            info = path.stat()
        except OSError:
            return read_document(path)
        stamp = info.st_mtime_ns, info.st_size, info.st_ino
        if self._documents.get(path, (None, None))[0] != stamp:
            self._documents[path] = stamp, read_document(path)
        _, document = self._documents[path]
        return Document(copy.deepcopy(document.data), dict(document.marks))


def is_path(source: str | Path) -> bool:
    """Tell a file from a name: a file ends in `.yaml` or `.yml`."""
    return isinstance(source, Path) or source.lower().endswith((".yaml", ".yml"))


def leads_inside(folder: Path, path: Path) -> bool:
    """Tell whether a path leads to something in a folder; the snapshots of the Hub's cache are links to its blobs."""
    root, target = folder.resolve(), path.resolve()
    blobs = root.parent.parent / "blobs" if root.parent.name == "snapshots" else root
    return target.is_relative_to(root) or target.is_relative_to(blobs)


def _names_inside(folder: Path, name: str) -> bool:
    """Tell whether a file that a file of a folder names is in that folder too."""
    is_relative = not name.startswith(("/", "~")) and not set(name) & set("\\:\0") and ".." not in Path(name).parts
    return is_relative and leads_inside(folder, folder / name)
