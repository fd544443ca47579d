"""The boundary of the library: what users hand in, and what plugins hand back, is held to what is written there.

`checked` holds the arguments of a public function to its annotations, and `Contract` does it for a base class of
plugins: what a subclass's own method raises or returns instead of what the base promises is a `PluginError` that names
the component. Within torch.compile and torch.export nothing is looked at.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from itertools import islice
from types import FunctionType
from typing import Any, TypeVar, cast, get_origin

from zoo_core.boundary.annotations import Expected, annotations_of, expected
from zoo_core.boundary.plugin_code import maker_of, passes
from zoo_core.errors import InputError, PluginError, describe, reason

__all__ = ["Contract", "checked"]

F = TypeVar("F", bound=Callable[..., Any])

TOLD_ELSEWHERE = ("overrides", "towers")
"""Arguments that every function hands on to one check, which tells how they are meant."""

MAX_TOLD = 1_000
"""Answers that are taken of a method that yields them."""


def checked(function: F) -> F:
    """Hold the arguments of a function or method to its annotations.

    Any `os.PathLike` becomes a `Path` where a path may stand.

    Raises:
        InputError: on a call with an argument that does not fit; function and argument are named.
    """
    torch = function.__globals__.get("torch")  # a module without it is not compiled
    is_compiling: Callable[[], bool] = torch.compiler.is_compiling if torch is not None else _never
    held: list[_Arguments] = []

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if is_compiling():
            return function(*args, **kwargs)
        if not held:
            held.append(_Arguments(cast("FunctionType", function)))
        args, kwargs = held[0].taken(args, kwargs)
        return function(*args, **kwargs)

    return cast("F", call)


def _never() -> bool:
    return False


class _Arguments:
    """What the arguments of a function have to be; made at the first call, when every name can be looked up."""

    def __init__(self, function: FunctionType) -> None:
        parameters = list(inspect.signature(function).parameters.values())
        annotations = annotations_of(function)
        expectations = {
            one.name: expected(annotations[one.name])
            for one in parameters
            if one.name in annotations
            and one.name not in TOLD_ELSEWHERE
            and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        }
        self._named = {name: wanted for name, wanted in expectations.items() if wanted is not None}
        self._placed = [
            (place, one.name, self._named[one.name])
            for place, one in enumerate(parameters)
            if one.name in self._named and one.kind is not one.KEYWORD_ONLY
        ]
        name = function.__qualname__.removesuffix(".__init__").removesuffix(".__call__")
        self._function = name if "." in name else f"{function.__module__.partition('.')[0]}.{name}"

    def taken(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a call, each as it is taken."""
        count = len(args)
        for place, name, wanted in self._placed:
            if place < count and type(args[place]) not in wanted.exact:
                args = (*args[:place], self._one(name, wanted, args[place]), *args[place + 1 :])
        for name, value in kwargs.items():
            wanted = self._named.get(name)
            if wanted is not None and type(value) not in wanted.exact:
                kwargs[name] = self._one(name, wanted, value)
        return args, kwargs

    def _one(self, name: str, wanted: Expected, value: Any) -> Any:
        try:
            return wanted.taken(value)
        except ValueError as error:
            raise InputError(f"{self._function}: {name} {error}") from None


class Contract:
    """A base class whose public methods plugins override, each held to what the base says that it returns."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, own in list(vars(cls).items()):
            promise = _promise(cls, name) if isinstance(own, FunctionType) else None
            if promise is not None:
                setattr(cls, name, _held(checked(cast("FunctionType", own)), promise))


def _promise(kind: type, name: str) -> FunctionType | None:
    """Return the public method of ours that a class overrides; None where it overrides none."""
    if name.startswith("_") and name != "__call__":
        return None
    ours = (vars(base)[name] for base in kind.__mro__[1:] if name in vars(base) and base.__module__[:9] == "zoo_core.")
    found: Any = next(ours, None)
    found = inspect.unwrap(found) if callable(found) else None
    return found if isinstance(found, FunctionType) else None


def _held(method: FunctionType, promise: FunctionType) -> Callable[..., Any]:
    """Return a method that raises a `PluginError` where it does not do what its base promises."""
    returned = annotations_of(promise).get("return", Any)
    yields = get_origin(returned) is Iterator
    wanted = expected(returned.__args__[0] if yields else returned)

    @functools.wraps(method)
    def call(self: object, /, *args: Any, **kwargs: Any) -> Any:
        try:
            answer: Any = method(self, *args, **kwargs)
            if yields:
                answer = list[Any](islice(answer, MAX_TOLD))
        except BaseException as error:
            if passes(error) or isinstance(error, KeyboardInterrupt | GeneratorExit):
                raise
            raise PluginError(f"{maker_of(type(self))}: {method.__name__} failed: {reason(error)}") from error
        for one in answer if yields else (answer,):
            if not (wanted is None or type(one) in wanted.exact or wanted.fits(one)):
                told = f"{method.__name__} must {'yield' if yields else 'return'} {wanted.phrase}"
                raise PluginError(f"{maker_of(type(self))}: {told}, found {describe(one)}")
        return iter(answer) if yields else answer

    return call
