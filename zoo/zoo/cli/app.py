"""The program `zoo`: its streams, warnings and exit status.

A plain `zoo list` is parsed here. typer and pydantic, which parse every other command line, take longer to import than
the list takes to make.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

from zoo.cli.architectures import show_architectures
from zoo.cli.output import exit_on_error, report_warning
from zoo_core.errors import ZooWarning

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `zoo` and return its exit status: 0, 1 for findings, 2 for errors, 130 where it was interrupted.

    Args:
        arguments: those of the command line where None.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # whoever started us closed it
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - until we end
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")  # a file name may be anything
    try:
        with _warnings_in_a_line():
            _run(*(sys.argv[1:] if arguments is None else arguments))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def _run(command: str | None = None, *arguments: str) -> None:
    """Run the command of that name; none prints the help."""
    patterns = [argument for argument in arguments if argument != "--json"]
    if command == "list" and len(patterns) < 2 and not "".join(patterns).startswith("-"):
        with exit_on_error():
            show_architectures(*patterns, json="--json" in arguments)
    else:
        from zoo.cli.commands import app

        app(args=arguments if command is None else (command, *arguments), prog_name="zoo")


@contextmanager
def _warnings_in_a_line() -> Generator[None]:
    """Print our own warnings as errors are printed, without the line of code that gave them."""
    with warnings.catch_warnings():
        print_warning = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
            if issubclass(category, ZooWarning):
                report_warning(message)
            else:
                print_warning(message, category, *place, **options)

        warnings.showwarning = show
        warnings.simplefilter("always", ZooWarning)
        yield
