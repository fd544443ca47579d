"""Cheap checks of values against annotations.

A class that only type checkers import is recognised by its name. What an annotation leaves open, such as `Any`, is not
checked here: then the function that takes the value has to.
"""

from __future__ import annotations

import builtins
import inspect
import math
import numbers
import os
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ForwardRef, Literal, Union, cast, get_args, get_origin

from zoo_core.documents import Bounds
from zoo_core.errors import describe, reason

__all__ = ["Expected", "annotations_of", "expected"]

MAX_NAME = 255
"""Bytes of one name in a path, in every file system that is in use."""
MAX_PATH = 4095
"""Bytes of a whole path, in every system that is in use."""
_INT64 = 2**63


@dataclass(frozen=True)
class Expected:
    """What a value has to be.

    Attributes:
        phrase: that, in words.
        fits: tells whether a value is.
        exact: types of which every value fits.
        is_path: whether it names a file or folder: strings are held to what a path can be.
        phrases: alternatives that `phrase` puts in a row, where it does.
    """

    phrase: str
    fits: Callable[[Any], bool]
    exact: frozenset[type] = frozenset()
    is_path: bool = False
    phrases: tuple[str, ...] = ()

    def check(self, value: Any) -> Any:
        """Return a value that fits, any `os.PathLike` as a `Path`.

        Raises:
            ValueError: it does not fit; the message says what it has to be.
        """
        if self.is_path and isinstance(value, str | os.PathLike):
            return _path(cast("os.PathLike[str]", value))
        try:
            fits = self.fits(value)
        except Exception as error:  # of its own methods
            raise ValueError(
                f"must be {self.phrase}, found a {type(value).__name__} that fails: {reason(error)}"
            ) from error
        if not fits:
            state = "; a state dict goes into a built model with model.load_state_dict"
            is_state = self.is_path and isinstance(cast("object", value), Mapping)
            raise ValueError(f"must be {self.phrase}, found {describe(value)}{state if is_state else ''}")
        return value


def _path(value: str | os.PathLike[str]) -> str | Path:
    try:
        text = os.fspath(value)
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError("it gives bytes")
        encoded = os.fsencode(text)
    except (TypeError, ValueError) as error:  # UnicodeEncodeError is one
        raise ValueError(f"must be a path, found {describe(value)}: {reason(error)}") from None
    if b"\0" in encoded:
        raise ValueError(f"must be a path, found {describe(text)}, which holds a NUL character")
    longest = max(map(len, encoded.split(b"/")))
    for length, most in ((longest, MAX_NAME), (len(encoded), MAX_PATH)):
        if length > most:
            what = f"a name of {length} bytes; no system has more than {most}"
            raise ValueError(f"must be a path, found {describe(text)}, which holds {what}")
    return value if isinstance(value, str | Path) else Path(text)


class _Unknown:
    """A name that only type checkers import, and what is written with it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self) -> None: ...  # typing takes what can be called for a type

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Unknown(name)

    def __getitem__(self, _: Any) -> _Unknown:
        return self

    def __or__(self, other: Any) -> Any:
        return Union[self, other]  # noqa: UP007 - a name is no type

    def __ror__(self, other: Any) -> Any:
        return Union[other, self]  # noqa: UP007


class _Names(dict[str, Any]):
    """The names of a module; those that it only has for type checkers are made up."""

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name, None) or _Unknown(name)


def annotations_of(function: types.FunctionType) -> Mapping[str, Any]:
    """Return what the annotations of a function stand for; nothing where one of them has no value."""
    try:
        return inspect.get_annotations(function, locals=_Names(function.__globals__), eval_str=True)
    except Exception:  # what an operator of somebody's class raises
        return {}


_NAMED = {"Tensor": "a tensor", "NDArray": "an array", "PathLike": "a path"}
"""Classes that are known by their names, of those that only type checkers import."""


def expected(annotation: Any) -> Expected | None:
    """Return what an annotation asks of a value; None where it asks for nothing that can be checked."""
    arguments = get_args(annotation)
    origin = get_origin(annotation)
    if annotation is None or annotation is types.NoneType:
        return Expected("None", lambda value: value is None, frozenset({types.NoneType}))
    if origin is Union or origin is types.UnionType:
        return _any_of(arguments)
    if origin is Literal:
        phrases = tuple(map(repr, arguments))
        return Expected(
            _alternatives(phrases),
            lambda value: any(type(value) is type(choice) and value == choice for choice in arguments),
            phrases=phrases,
        )
    if isinstance(annotation, _Unknown):
        return _named(annotation.name)
    if isinstance(annotation, ForwardRef):  # text within an alias
        return _named(annotation.__forward_arg__.partition("[")[0])
    kind = origin or annotation
    if kind in (Sequence, list, tuple, Collection, Set, set, frozenset):
        return _collection(kind, arguments)
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    if isinstance(kind, type) and kind not in (object, Any) and not getattr(kind, "_is_protocol", False):
        return Expected(f"a {kind.__name__}", lambda value: isinstance(value, kind))
    return None


def _any_of(choices: Sequence[Any]) -> Expected | None:
    checks = [check for check in map(expected, choices) if check is not None]
    is_path = any(check.is_path for check in checks)
    takes_anything = len(checks) < len(choices)
    if takes_anything and not is_path:
        return None
    return Expected(
        _alternatives([phrase for check in checks for phrase in check.phrases or (check.phrase,)]),
        lambda value: takes_anything or any(check.fits(value) for check in checks),
        frozenset(exact for check in checks for exact in check.exact if not (is_path and exact is str)),
        is_path,
    )


def _alternatives(phrases: Sequence[str]) -> str:
    *first, last = dict.fromkeys(phrases)
    return f"{', '.join(first)} or {last}" if first else last


def _named(name: str) -> Expected | None:
    if name not in _NAMED:
        return None
    if name == "PathLike":
        return _SIMPLE[os.PathLike]
    names = {name, "ndarray"} if name == "NDArray" else {name}
    return Expected(_NAMED[name], lambda value: any(base.__name__ in names for base in type(value).__mro__))


def _collection(kind: type, arguments: Sequence[Any]) -> Expected:
    """Return what asks for a collection whose entries fit; of a tuple of several types, for as many entries."""
    phrase = {list: "a list", tuple: "a tuple", Set: "a set", set: "a set"}.get(kind, "a list or a tuple")
    entries = [expected(argument) for argument in arguments if argument is not ...]
    if kind is tuple and ... not in arguments and arguments:
        return Expected(
            f"a tuple of {len(entries)}",
            lambda value: (
                isinstance(value, tuple)
                and len(cast("tuple[Any, ...]", value)) == len(entries)
                and all(
                    check is None or check.fits(entry)
                    for check, entry in zip(entries, cast("tuple[Any, ...]", value), strict=True)
                )
            ),
        )
    entry = _WHOLE_ENTRY if arguments and arguments[0] is int else entries[0] if entries else None
    if entry is None:
        return Expected(phrase, lambda value: isinstance(value, kind) and not isinstance(value, str | bytes))

    def fits(value: Any) -> bool:
        if not isinstance(value, kind) or isinstance(value, str | bytes):
            return False
        listed = cast("Collection[Any]", value)
        return set(map(type, listed)) <= entry.exact or all(map(entry.fits, listed))

    return Expected(f"{phrase} (each entry {entry.phrase})", fits)


def _is_whole(value: Any) -> bool:
    return type(value) is not bool and isinstance(value, numbers.Integral) and -_INT64 <= int(value) < _INT64


def _is_number(value: Any) -> bool:
    if type(value) is bool or not isinstance(value, numbers.Real):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _is_mapping(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    keys = islice(cast("Mapping[Any, Any]", value), Bounds.values)  # one without end has its own error later
    return all(isinstance(key, str) for key in keys)


_WHOLE_ENTRY = Expected("a whole number", _is_whole, frozenset({int}))
"""An entry of a sequence; where all are of type int, their values are not looked at."""
_STRING = Expected("a string", lambda value: isinstance(value, str), frozenset({str}))
_SIMPLE: Mapping[Any, Expected] = {
    str: _STRING,
    bytes: Expected("bytes", lambda value: isinstance(value, bytes), frozenset({bytes})),
    bool: Expected("True or False", lambda value: isinstance(value, bool), frozenset({bool})),
    int: Expected("a whole number of at most 64 bits", _is_whole),
    float: Expected("a finite number", _is_number),
    Path: Expected("a path", lambda value: isinstance(value, Path), is_path=True),
    os.PathLike: Expected("a path", lambda value: isinstance(value, os.PathLike), is_path=True),
    Mapping: Expected("a mapping with names for keys", _is_mapping),
    dict: Expected("a dict", lambda value: isinstance(value, dict)),
    Iterable: Expected("several", lambda value: isinstance(value, Iterable)),
    Iterator: Expected("an iterator", lambda value: isinstance(value, Iterator)),
    Callable: Expected("a function", callable),
}
