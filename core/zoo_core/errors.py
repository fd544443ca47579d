"""Every error that zoo raises on purpose.

Each is one line that names what is wrong, where, what was found, what is allowed and the fix. Each also derives
from the builtin that a caller would catch today, accepts a single string, and survives pickling (a data-loader
worker re-raises an error as `type(error)(message)`).

    ZooError
    ├── ConfigError (ValueError)             one or more located problems of an architecture or a config
    ├── UnknownNameError (LookupError)       no model, component, pretrained tag or public name is called so
    │   └── AmbiguousNameError               two distributions claim it; both are named
    ├── PluginError (ImportError)            a plugin or a component cannot be used
    │   └── NotFiniteError                   a tower gave NaN or infinity of finite inputs
    ├── CapabilityError (NotImplementedError) a tower was asked for something that it does not claim
    ├── InputError (ValueError)              a tensor, a string or an argument that a model cannot take
    │   └── ImageFileError (also OSError)    an image file that cannot be read as an image
    ├── DataError (ValueError)               a data set that cannot be used: nothing there, damaged, or changed
    │   └── SampleError                      one sample of it; training takes another in its place
    ├── TrainingError (RuntimeError)         a training run cannot go on: not finite, or a process that is missing
    ├── CheckpointError (RuntimeError)       weights that are damaged or do not fit the architecture
    │   └── MismatchError                    names or shapes of weights are not those of the model
    ├── DownloadError (OSError)              a file of the Hub that cannot be had, or is not what it should be
    ├── MissingDependencyError (ImportError) an optional package is needed; the pip command is named
    ├── SaveError (OSError)                  a folder or file could not be written; nothing was left half-written
    └── BrokenPromiseError (AssertionError)  a component is not what its kind promises (`zoo_core.testing`)
"""

from __future__ import annotations

import difflib
import inspect
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "AmbiguousNameError",
    "CapabilityError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DownloadError",
    "ImageFileError",
    "InputError",
    "MismatchError",
    "MissingDependencyError",
    "NotFiniteError",
    "PluginError",
    "Problem",
    "SampleError",
    "SaveError",
    "SlowDtypeWarning",
    "TrainingError",
    "TruncatedTextWarning",
    "UnknownNameError",
    "ZooError",
    "ZooWarning",
    "describe",
    "did_you_mean",
    "dotted",
    "one_of",
    "reason",
    "warn_caller",
]


_BETWEEN = ("zoo", "zoo_core", "contextlib", "torch")
"""Packages that stand between a caller, whose line a warning names, and the place that warns."""
MOST = 40
"""So many problems of one config are listed, and the others counted."""
LONGEST_KEY = 120
LONGEST_LINE = 2000
"""Characters of a line of a message; of a longer one the middle is left out, since the fix stands at its end."""
_UNSEEN = re.compile(r"[\0-\t\v-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that command a terminal, turn a line round, or cannot be printed at all."""


class ZooError(Exception):
    """Root of every error that zoo raises on purpose; `str(error)` is the whole message.

    Names of a file or of its entries may hold anything; what cannot be seen in them is shown as its escape.
    """

    def __str__(self) -> str:
        return _line(super().__str__())


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a config, and its place.

    `source` is a file, an override or an argument; `line` and `column` count from 1 and are 0 where there is no file.
    """

    message: str
    key: str = ""
    source: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        position = f"{self.source}:{self.line}:{self.column}" if self.line else self.source
        key = self.key if len(self.key) <= LONGEST_KEY else f"{self.key[: LONGEST_KEY - 3]}..."
        return ": ".join(part for part in (_line(position), _line(key), self.message) if part)


class ConfigError(ZooError, ValueError):
    """A config that cannot be used; `problems` lists everything that is wrong with it, in file order."""

    def __init__(self, problems: str | Problem | Sequence[Problem]) -> None:
        if isinstance(problems, str):
            problems = Problem(problems)
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        more = [f"and {len(self.problems) - MOST:,} more problems"] if len(self.problems) > MOST else []
        super().__init__("\n".join([*map(str, self.problems[:MOST]), *more]))

    def __str__(self) -> str:
        return "\n".join(map(_line, Exception.__str__(self).split("\n")))


class UnknownNameError(ZooError, LookupError):
    """A name that nothing is called by; the message offers the nearest ones."""


class AmbiguousNameError(UnknownNameError):
    """A name that two distributions claim; the message names both and how to address either."""


class PluginError(ZooError, ImportError):
    """A plugin or one of its components cannot be used; the message names its distribution and the reason."""


class NotFiniteError(PluginError):
    """Features that are NaN or infinite although the inputs are not; the message names the tower."""


class CapabilityError(ZooError, NotImplementedError):
    """A tower or model was asked for something that its component does not claim."""


class InputError(ZooError, ValueError):
    """A tensor, string or argument that the model cannot take."""


class ImageFileError(InputError, OSError):
    """A file that cannot be read as an image; the message names the file."""


class DataError(ZooError, ValueError):
    """A data set that cannot be used: it is empty, damaged, or not the one that a run began with."""


class SampleError(DataError):
    """One sample that cannot be used; the message names where it stands, and why."""


class TrainingError(ZooError, RuntimeError):
    """A training run that cannot go on; the message names the step and what to do."""


class CheckpointError(ZooError, RuntimeError):
    """Weights that are damaged, or that do not fit the architecture they were asked for."""


class DownloadError(ZooError, OSError):
    """A file of the Hugging Face Hub that cannot be had, or holds other bytes than it should.

    `repo`, `revision` and `file` are those that were asked for; None where the message alone is known.
    """

    def __init__(
        self, message: str, *, repo: str | None = None, revision: str | None = None, file: str | None = None
    ) -> None:
        super().__init__(message)
        self.repo, self.revision, self.file = repo, revision, file


class MismatchError(CheckpointError):
    """Weights whose names or shapes are not those of the model, which is unchanged.

    Attributes:
        missing: entries of the model that the weights lack.
        unexpected: entries of the weights that the model lacks.
        misshapen: entries of another shape, with the shape in the weights and that of the model.
    """

    def __init__(
        self,
        message: str,
        missing: Sequence[str] = (),
        unexpected: Sequence[str] = (),
        misshapen: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] | None = None,
    ) -> None:
        self.missing, self.unexpected = tuple(missing), tuple(unexpected)
        self.misshapen = dict(misshapen or {})
        super().__init__(message)


class MissingDependencyError(ZooError, ImportError):
    """An optional package is needed; the message names the command that installs it."""


class SaveError(ZooError, OSError):
    """A folder or file could not be written; whatever stood there before still does."""


class ZooWarning(UserWarning):
    """Something that was done as asked, and that changes what a model gives or takes."""


class TruncatedTextWarning(ZooWarning):
    """Captions that are longer than a model takes were cut."""


class SlowDtypeWarning(ZooWarning):
    """A model computes in a dtype for which the processor has no instructions, slower than in float32."""


def _line(text: str) -> str:
    """Return a text as one line that can be printed."""
    text = text.replace("\n", " ")
    if len(text) > LONGEST_LINE:
        text = f"{text[: LONGEST_LINE // 2]} ... {text[-LONGEST_LINE // 2 :]}"
    return _UNSEEN.sub(lambda match: ascii(match[0])[1:-1], text)


def warn_caller(message: str, category: type[ZooWarning]) -> None:
    """Warn at the line of the first caller outside of zoo."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def dotted(path: Iterable[str | int]) -> str:
    """Return the place of a value as the key of a problem: `("layers", 2)` as `layers[2]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return `", did you mean 'x'?"` for the nearest of `known`, or the whole list where nothing is near."""
    choices = sorted(set(known))
    if len(name) > LONGEST_KEY:  # the search takes time with the square of the length
        return f"; {one_of(choices)}" if choices else ""
    near = difflib.get_close_matches(name, choices, n=1, cutoff=cutoff)
    if near:
        return f", did you mean '{near[0]}'?"
    return f"; {one_of(choices)}" if choices else ""


def one_of(choices: Iterable[str], *, limit: int = 24) -> str:
    """Return `"allowed: a, b, c"`, cut after `limit` names."""
    names = sorted(choices)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"allowed: {', '.join(names[:limit])}{more}"


def describe(value: object, limit: int = 60) -> str:
    """Return a value as an error shows it: one line of at most `limit` characters, whatever its `repr` does."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, str | bytes):
        value = value[: limit + 1]
    try:
        text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    except Exception:
        text = f"a {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def reason(error: BaseException, limit: int = 300) -> str:
    """Return an error in one line as `Type: message`; ours, and those that say nothing, stand for themselves."""
    try:
        text = " ".join(str(error).split())
    except BaseException:  # an error may be somebody else's class, and its words may raise anything
        text = ""
    if len(text) > limit:
        text = f"{text[: limit - 3]}..."
    if isinstance(error, ZooError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
