"""The command `zoo train`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.output import report, show
from zoo.cli.tables import table
from zoo_core.errors import DataError, InputError, TrainingError

__all__ = ["train_command"]

BAD_DATA, FAILED_RUN = 3, 4
PREEMPTED = 143
"""128 and the number of SIGTERM, as shells count."""


def train_command(
    recipe: Annotated[str, typer.Argument(help="A recipe: the path of a YAML file, or a name that zoo ships.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes of it.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the run goes; runs/ and the recipe's name if left out.")
    ] = None,
    resume: Annotated[
        str,
        typer.Option(metavar="auto|never|PATH", help="Go on where the folder is, begin anew, or from a checkpoint."),
    ] = "auto",
    processes: Annotated[int | None, typer.Option(min=1, help="Start so many processes with torchrun.")] = None,
) -> None:
    """Train a model as a recipe says.

    A run that was killed goes on exactly where its last checkpoint is: start it again with the same command.
    """
    if processes is not None and processes > 1 and "RANK" not in os.environ:
        _start_processes(processes)
    from zoo.training.train import train

    try:
        result = train(recipe, overrides=overrides or (), out=out, resume=resume, show_progress=True)
    except DataError as error:
        report(str(error))
        sys.exit(BAD_DATA)
    except TrainingError as error:
        report(str(error))
        sys.exit(FAILED_RUN)
    if result.stopped is not None:
        report(f"stopped by {result.stopped} after step {result.step:,}; the same command goes on from there")
        sys.exit(PREEMPTED)
    if int(os.environ.get("RANK", "0")) > 0:
        return
    rows = [(name, f"{value:.6g}") for name, value in sorted(result.metrics.items())]
    show(table(("METRIC", "VALUE"), rows, right=["VALUE"]), "", f"model: {result.folder}", f"digest: {result.digest}")


def _start_processes(count: int) -> None:
    """Replace this process by torchrun, with the same command line but for `--processes`."""
    arguments = sys.argv[1:]
    place = next((i for i, argument in enumerate(arguments) if argument.partition("=")[0] == "--processes"), None)
    if place is None:
        raise InputError("--processes needs a command line of its own; start torchrun -m zoo train yourself")
    del arguments[place : place + (1 if "=" in arguments[place] else 2)]
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "-m", "zoo"]
    os.execv(sys.executable, [*program, *arguments])
