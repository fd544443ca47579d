"""Runtime checks of public arguments and of what plugins return.

`checked` compares the arguments of a public function with its annotations. `Contract` does it for a base class of
plugins: where a subclass's method raises, or returns something else than the base promises, users get a `PluginError`
that names the component. Within torch.compile and torch.export nothing is checked.
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

CHECKED_ELSEWHERE = ("overrides", "towers")
"""Arguments that every function hands on to one check, whose error says how they are meant."""

MAX_YIELDED = 1_000
"""Values that are taken of a method that yields them."""


def checked(function: F) -> F:
    """Hold the arguments of a function or method to its annotations.

    Any `os.PathLike` becomes a `Path` where a path may stand.

    Raises:
        InputError: on a call with an argument that does not fit; function and argument are named.
    """
    is_compiling = _compiling(cast("FunctionType", function))
    checks: list[_Arguments] = []

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if is_compiling():
            return function(*args, **kwargs)
        if not checks:  # at the first call, when every name of an annotation can be looked up
            checks.append(_Arguments(cast("FunctionType", function)))
        args, kwargs = checks[0].check(args, kwargs)
        return function(*args, **kwargs)

    return cast("F", call)


def _compiling(*functions: FunctionType) -> Callable[[], bool]:
    """Return what tells whether torch.compile runs; a module without torch is not compiled."""
    torch = next((function.__globals__["torch"] for function in functions if "torch" in function.__globals__), None)
    return torch.compiler.is_compiling if torch is not None else lambda: False


class _Arguments:
    """What the arguments of a function have to be."""

    def __init__(self, function: FunctionType) -> None:
        parameters = list(inspect.signature(function).parameters.values())
        annotations = annotations_of(function)
        expectations = {
            parameter.name: expected(annotations[parameter.name])
            for parameter in parameters
            if parameter.name in annotations
            and parameter.name not in CHECKED_ELSEWHERE
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        }
        self._by_name = {name: check for name, check in expectations.items() if check is not None}
        self._by_position = [
            (index, parameter.name, self._by_name[parameter.name])
            for index, parameter in enumerate(parameters)
            if parameter.name in self._by_name and parameter.kind is not parameter.KEYWORD_ONLY
        ]
        name = function.__qualname__.removesuffix(".__init__").removesuffix(".__call__")
        self._function = name if "." in name else f"{function.__module__.partition('.')[0]}.{name}"

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a call, paths as `Path`."""
        count = len(args)
        for index, name, expectation in self._by_position:
            if index < count and type(args[index]) not in expectation.exact:
                args = (*args[:index], self._checked(name, expectation, args[index]), *args[index + 1 :])
        for name, value in kwargs.items():
            expectation = self._by_name.get(name)
            if expectation is not None and type(value) not in expectation.exact:
                kwargs[name] = self._checked(name, expectation, value)
        return args, kwargs

    def _checked(self, name: str, expectation: Expected, value: Any) -> Any:
        try:
            return expectation.check(value)
        except ValueError as error:
            raise InputError(f"{self._function}: {name} {error}") from None


class Contract:
    """A base class whose public methods plugins override, each checked against what the base says that it returns."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, method in list(vars(cls).items()):
            promise = _promise(cls, name) if isinstance(method, FunctionType) else None
            if promise is not None:
                setattr(cls, name, _keeping(checked(cast("FunctionType", method)), promise))


def _promise(kind: type, name: str) -> FunctionType | None:
    """Return the public method of zoo_core that a class overrides; None where it overrides none."""
    if name.startswith("_") and name != "__call__":
        return None
    bases = (base for base in kind.__mro__[1:] if name in vars(base) and base.__module__.startswith("zoo_core."))
    overridden: Any = next((vars(base)[name] for base in bases), None)
    method = inspect.unwrap(overridden) if callable(overridden) else None
    return method if isinstance(method, FunctionType) else None


def _keeping(method: FunctionType, promise: FunctionType) -> Callable[..., Any]:
    """Return a method that raises a `PluginError` where it does not do what its base promises."""
    returned = annotations_of(promise).get("return", Any)
    yields = get_origin(returned) is Iterator
    expectation = expected(returned.__args__[0] if yields else returned)
    is_compiling = _compiling(method, promise)

    @functools.wraps(method)
    def call(self: object, /, *args: Any, **kwargs: Any) -> Any:
        if is_compiling():
            return method(self, *args, **kwargs)
        try:
            answer: Any = method(self, *args, **kwargs)
            if yields:
                answer = list[Any](islice(answer, MAX_YIELDED))
        except BaseException as error:
            if passes(error) or isinstance(error, KeyboardInterrupt | GeneratorExit):
                raise
            raise PluginError(f"{maker_of(type(self))}: {method.__name__} failed: {reason(error)}") from error
        for value in answer if yields else (answer,):
            if not (expectation is None or type(value) in expectation.exact or expectation.fits(value)):
                promised = f"{method.__name__} must {'yield' if yields else 'return'} {expectation.phrase}"
                raise PluginError(f"{maker_of(type(self))}: {promised}, found {describe(value)}")
        return iter(answer) if yields else answer

    return call
