"""Documents: the content of a file, with bounds and key positions."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo_core.errors import ConfigError, Problem

__all__ = [
    "ENCODER_CONFIG",
    "TOKENIZER_CONFIG",
    "Bounds",
    "Document",
    "KeyPath",
    "Mark",
    "expect_file",
    "read_text",
]

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Bounds:
    """What a document may hold at most; the defaults are those of an architecture."""

    bytes: int = 256 * 1024
    depth: int = 32
    values: int = 10_000


ENCODER_CONFIG = Bounds(bytes=4 << 20, values=100_000)
"""Bounds of the `config.json` of a transformers encoder, of which some name thousands of labels."""
TOKENIZER_CONFIG = Bounds(bytes=16 << 20, values=1_000_000)
"""Bounds of a `tokenizer_config.json`, which may list tens of thousands of added tokens."""


@dataclass(frozen=True)
class Mark:
    """Line and column of a key; lines and columns count from 1, and are 0 where there is no file."""

    source: str
    line: int = 0
    column: int = 0

    def problem(self, message: str, key: str = "") -> Problem:
        """Return a problem at this place."""
        return Problem(message, key, self.source, self.line, self.column)


@dataclass
class Document:
    """The mapping of a file, the mark of each key in it, and the `${key}` text of values that had one."""

    data: dict[str, Any]
    marks: dict[KeyPath, Mark] = field(default_factory=dict[KeyPath, Mark])
    references: dict[KeyPath, str] = field(default_factory=dict[KeyPath, str])

    def mark(self, path: KeyPath) -> Mark:
        """Return the mark of `path`, or of the nearest key above it."""
        while path not in self.marks and path:
            path = path[:-1]
        return self.marks.get(path, Mark(""))

    def locate(self, error: ConfigError, above: KeyPath = ()) -> ConfigError:
        """Return an error about this document with the mark of each key that it blames, in file order.

        Args:
            error: problems with dotted keys, such as those of `Config.parse`.
            above: the keys of the section that they are keys of.
        """
        problems = [
            self.mark((*above, *problem.key.split("."))).problem(problem.message, problem.key)
            for problem in error.problems
        ]
        return ConfigError(sorted(problems, key=lambda problem: (problem.line, problem.column)))


def expect_file(path: str | Path) -> None:
    """Refuse what is there and no regular file: opening a pipe waits for ever, and a device has no end.

    Raises:
        ConfigError: the message says what to remove.
        OSError: it cannot be told.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - a path of the Hub's client may be text
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise ConfigError(Problem("is not a regular file; remove it", source=str(path)))


def read_text(path: Path, limit: int = Bounds.bytes) -> str:
    """Return the UTF-8 text of a regular file of at most `limit` bytes, without its byte order mark.

    Raises:
        ConfigError: it is none; the message says what it is instead.
    """
    source = str(path)
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise ConfigError(Problem("is not a regular file", source=source))
        if info.st_size > limit:
            raise ConfigError(Problem(f"has {info.st_size:,} bytes; at most {limit:,} are read", source=source))
        content = path.read_bytes()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ConfigError(Problem(f"cannot be read: {reason}", source=source)) from error
    except ValueError as error:  # a NUL or a lone surrogate in the path
        raise ConfigError(Problem(f"cannot be read: {error}", source=ascii(source))) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = f"byte {error.start} is 0x{content[error.start]:02x}"
        raise ConfigError(Problem(f"is not UTF-8 text: {byte}", source=source)) from error
    if "\0" in text:
        raise ConfigError(Problem("is a binary file, expected text", source=source))
    return text
