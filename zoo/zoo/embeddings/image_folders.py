"""The images of a folder, and what is passed over."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from zoo_core.errors import describe
from zoo_core.plugin import IMAGE

__all__ = ["EXTENSIONS", "NO_UNICODE", "PassedOver", "file_ids", "images_of"]

EXTENSIONS = IMAGE.files
"""What counts as an image inside a folder; a file that is named itself may end in anything."""

OTHER_FORMATS = "files of a format that is not read", "convert them to JPEG or PNG"
ARCHIVES = "archives", "unpack those that hold images"
VIDEOS = "moving pictures", "take single pictures out of them"
NO_EXTENSION = "files without an extension", "name those that are images themselves"
OTHERS = "files of other extensions", "name those that are images themselves"
OTHERS_OF_MODALITY = OTHERS[0], "name those that are to be embedded themselves"
LINKS = "links to folders", "name the folders that they lead to"
UNLISTED = "folders that cannot be listed", "change their permissions"
NO_UNICODE = "names that are no Unicode and can be no ids", "rename them"

_EXTENSIONS_OF = {
    OTHER_FORMATS: ".arw .avif .cr2 .cr3 .dng .exr .heic .heif .ico .jp2 .jxl .nef .orf .psd .raf .raw .rw2 .svg .tga",
    ARCHIVES: ".7z .gz .rar .tar .tgz .xz .zip .zst",
    VIDEOS: ".avi .m4v .mkv .mov .mp4 .mpg .webm",
}
_KINDS = {
    "": NO_EXTENSION,
    **{extension: kind for kind, listed in _EXTENSIONS_OF.items() for extension in listed.split()},
}
"""What a file is called and what to do about it, by its extension; `OTHERS` for the rest."""


@dataclass
class PassedOver:
    """Files that were taken for no images."""

    _paths: dict[tuple[str, str], list[str]] = field(default_factory=dict[tuple[str, str], list[str]])

    @property
    def lost(self) -> int:
        """How many of them, or of the folders that hold them, cannot be read, whatever is in them."""
        return sum(len(self._paths.get(kind, ())) for kind in (UNLISTED, NO_UNICODE))

    def add(self, path: str, kind: tuple[str, str]) -> None:
        """Take note of a file."""
        self._paths.setdefault(kind, []).append(path)

    def sentences(self) -> Iterator[str]:
        """Yield a line for each kind: how many, of which extensions, the first of them, and the remedy."""
        for (what, remedy), paths in self._paths.items():
            extensions = Counter(Path(path).suffix.lower() for path in paths).most_common()
            shown = [f"{number} {extension}" for extension, number in extensions[:6]]
            shown += [f"{len(extensions) - 6} other extensions"] if len(extensions) > 6 else []
            is_told = what in (OTHER_FORMATS[0], ARCHIVES[0], VIDEOS[0], OTHERS[0])
            counted = ", ".join(shown) if is_told else len(paths)
            first = describe(paths[0], 200) + (", ..." if len(paths) > 1 else "")
            yield f"passed over {what} ({counted}): {first}; {remedy}"


def images_of(folder: Path, passed_over: PassedOver, extensions: Collection[str] = EXTENSIONS) -> Iterator[str]:
    """Yield the files below a folder that end as images do, or in other extensions, sorted; the rest is passed over."""

    def unlisted(error: OSError) -> None:
        passed_over.add(str(error.filename), UNLISTED)

    files: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=unlisted):
        files += [Path(parent) / name for name in names]
        for link in (Path(parent) / name for name in folders):
            if link.is_symlink():
                passed_over.add(str(link), LINKS)
    for file in sorted(files):
        extension = file.suffix.lower()
        if extension in extensions:
            yield str(file)
        else:
            is_of_images = extensions == EXTENSIONS
            passed_over.add(str(file), _KINDS.get(extension, OTHERS) if is_of_images else OTHERS_OF_MODALITY)


def file_ids() -> Callable[[str], str]:
    """Return a function that gives a file the same path however it is named.

    It is absolute, with the links of its folder resolved. A link to the file itself stays, for its name may say more
    than that of the file, as in a folder of links into a store.
    """

    @functools.cache
    def resolved(folder: str) -> str:
        try:
            path = str(Path(folder).resolve())
        except (OSError, RuntimeError, ValueError):  # a loop of links, or a null character
            path = str(Path(folder).absolute())
        return path.rstrip(os.sep) + os.sep

    def file_id(path: str) -> str:
        folder, name = os.path.split(path)
        return resolved(folder) + name

    return file_id
