"""Inputs of embeddings: image files and lines of text files."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from zoo.embeddings.image_folders import NO_UNICODE, PassedOver, file_ids, images_of
from zoo_core.errors import InputError, ZooWarning
from zoo_core.plugin import IMAGE, ModalitySpec

__all__ = ["find_images", "read_captions"]

TABLES = (".csv", ".json", ".jsonl", ".parquet", ".tsv")
"""How files end whose lines are no captions, though many could be read as such."""
STANDARD_INPUT = "-"


def find_images(
    paths: Iterable[str | Path], passed_over: PassedOver | None = None, modality: ModalitySpec = IMAGE
) -> list[str]:
    """Return the images, or files of another modality, that files and folders stand for, as given, each once.

    Those of a folder are sorted by path.

    `-` stands for the paths on standard input, one a line, or with a null character behind each.

    Args:
        paths: files and folders.
        passed_over: takes up what is no image by its name.
        modality: says how names of files end.

    Raises:
        InputError: the modality is text, or there is no file of it, or text files alone, or nothing of what is named
            is there.
    """
    if modality.name == "text":
        raise InputError("captions are embedded with --text, which needs no --modality")
    paths, passed_over = list(paths), PassedOver() if passed_over is None else passed_over
    if paths and not any(_is_standard_input(path) or os.path.lexists(path) for path in paths):
        raise InputError(f"{paths[0]}: there is no such file or folder")
    if paths and all(str(path).lower().endswith(".txt") for path in paths):
        raise InputError(f"{paths[0]} is a text file; captions are embedded with --text")
    files: dict[str, str] = {}
    file_id = file_ids()
    for path in _named_paths(paths):
        is_folder = Path(path).is_dir()
        for file in images_of(Path(path), passed_over, modality.files) if is_folder else [str(Path(path))]:
            try:
                file.encode()
            except UnicodeEncodeError:
                passed_over.add(file, NO_UNICODE)
            else:
                files.setdefault(file_id(file), file)
    if not files:
        endings = ", ".join(modality.files)
        fix = f"in a folder those count that end in {endings}" if endings else "name the files themselves"
        raise InputError(f"found no {modality.name}; {fix}")
    return list(files.values())


def read_captions(paths: Iterable[str | Path]) -> list[str]:
    """Return the lines of text files without blank ones, of which a warning tells. `-` stands for standard input.

    Raises:
        InputError: a file cannot be read, is a table, is not UTF-8, or there is no caption at all.
    """
    captions: list[str] = []
    for path in paths:
        if str(path).lower().endswith(TABLES):
            raise InputError(f"{path} is a table, expected a caption a line; write its column out, or pipe it to '-'")
        try:
            text = (_standard_input() if _is_standard_input(path) else Path(path).read_bytes()).decode("utf-8-sig")
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8 text (byte {error.start})") from error
        lines = [line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").rstrip().split("\n")]
        captions += filter(None, lines)
        blank = lines.count("")
        if blank and any(lines):
            warnings.warn(
                f"{path}: {blank} blank lines are left out, the first of them line {lines.index('') + 1}; what "
                "follows is counted without them",
                ZooWarning,
                stacklevel=2,
            )
    if not captions:
        raise InputError("found no caption; expected one a line")
    return captions


def _named_paths(paths: Iterable[str | Path]) -> Iterator[str | Path]:
    """Yield the paths that are named, those on standard input among them."""
    for path in paths:
        if _is_standard_input(path):
            content = _standard_input()
            lines = content.split(b"\0") if b"\0" in content else content.replace(b"\r\n", b"\n").split(b"\n")
            yield from (os.fsdecode(line) for line in lines if line)
        else:
            yield path


def _is_standard_input(path: str | Path) -> bool:
    return str(path) == STANDARD_INPUT


def _standard_input() -> bytes:
    return sys.stdin.buffer.read()
