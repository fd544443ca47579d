"""Guard around code of other libraries: errors become those of zoo.

A panic of a library written in Rust is a BaseException, of a module that nobody can import.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from zoo_core.boundary.plugin_code import passes
from zoo_core.errors import ZooError, reason

__all__ = ["library_code"]


@contextmanager
def library_code(refusal: Callable[[str], ZooError]) -> Generator[None]:
    """Run a block in which each error of a library is raised as `refusal` of its reason.

    Errors of zoo pass, and so do Ctrl-C, `SystemExit`, too little memory, and warnings that the user made errors.
    """
    try:
        yield
    except BaseException as error:
        if passes(error) or not (isinstance(error, Exception) or type(error).__module__ == "pyo3_runtime"):
            raise
        raise refusal(reason(error)) from error
