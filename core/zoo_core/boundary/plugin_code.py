"""Guard around code of plugins: errors name the plugin.

A `KeyboardInterrupt` is the user's only where a signal came. One that a plugin raises by itself is its fault like any
other. A plugin that never returns cannot be helped, and neither can one that ends the process.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

from zoo_core.errors import PluginError, ZooError, reason

__all__ = ["Interrupts", "PluginCode", "made_by", "maker_of", "passes"]


class Interrupts:
    """A block within which a Ctrl-C of the user is told from a `KeyboardInterrupt` that code raises by itself.

    Python raises the user's in the main thread alone, and from the handler of its signal. In any other thread, and
    where the signal has no handler in Python, none is the user's.

    Attributes:
        arrived: whether the signal came.
    """

    arrived = False
    _before: Any = None

    def __enter__(self) -> Self:
        before = signal.getsignal(signal.SIGINT)
        if callable(before):
            with suppress(ValueError):  # no thread but the main one may set a handler
                signal.signal(signal.SIGINT, self._note)
                self._before = before
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None and signal.getsignal(signal.SIGINT) == self._note:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.arrived = True
        self._before(number, frame)


class PluginCode:
    """A block that runs code of a plugin: what it raises becomes a `PluginError`.

    Errors of zoo pass, and so does what is not the plugin's fault: Ctrl-C, too little memory, and warnings that the
    user made errors.

    Args:
        owner: the component or plugin, as the message names it.
        failure: what then did not work, such as `"its factory acme.tower:MeanPool failed"`.
    """

    def __init__(self, owner: object, failure: str) -> None:
        self._owner, self._failure = owner, failure
        self._interrupts = Interrupts()

    def __enter__(self) -> None:
        self._interrupts.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._interrupts.__exit__()
        if error is None:
            return
        if self._interrupts.arrived:
            raise KeyboardInterrupt from error
        if not passes(error):
            raise PluginError(f"{self._owner}: {self._failure}: {reason(error)}") from error


def passes(error: BaseException) -> bool:
    """Tell whether an error is no fault of the code that raised it: one of zoo, a warning, too little memory."""
    return isinstance(error, ZooError | Warning | MemoryError) or type(error).__name__ == "OutOfMemoryError"


_makers: dict[type[Any], str] = {}


def made_by(component: object, made: type[Any]) -> None:
    """Remember which component a class of objects or of configs belongs to, for errors about them."""
    _makers[made] = str(component)


def maker_of(made: type[Any]) -> str:
    """Return the component that a class belongs to, or else its own name and module."""
    for base in made.__mro__:
        if base in _makers:
            return _makers[base]
    return f"{made.__qualname__} of {made.__module__}"
