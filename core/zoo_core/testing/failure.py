"""The error of a component that breaks a promise."""

from typing import Never

from zoo_core.errors import ZooError

__all__ = ["BrokenPromiseError", "fail"]


class BrokenPromiseError(ZooError, AssertionError):
    """A component that does not do what its kind or its spec promises."""


def fail(sentence: str) -> Never:
    """Raise a `BrokenPromiseError`."""
    raise BrokenPromiseError(sentence)
