"""The commands `zoo train` and `zoo demo`."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.output import progress, report, show, show_json
from zoo.cli.tables import table
from zoo_core.errors import DataError, InputError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoo.demo import DemoResult

__all__ = ["demo_command", "train_command"]

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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, try three steps, and stop.")] = False,
    processes: Annotated[int | None, typer.Option(min=1, help="Start so many processes with torchrun.")] = None,
) -> None:
    """Train a model as a recipe says.

    A run that was killed goes on exactly where its last checkpoint is: start it again with the same command.
    """
    if processes is not None and processes > 1 and "RANK" not in os.environ:
        _start_processes(processes)
    from zoo.training.train import dry_run as try_run
    from zoo.training.train import train

    try:
        if dry_run:
            show(*try_run(recipe, overrides=overrides or ()).lines())
            return
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


def demo_command(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the model and its pictures go.")] = Path(
        "zoo-demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Decides the split, the weights and the training.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps; the recipe's own if left out.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train a tiny CLIP on digits, offline.

    It is tested on digits and captions that it never saw; the last line is a command to try it with.
    """
    from zoo.demo import run_demo

    with progress("training") as advance:

        def tell(step: int, steps: int, metrics: Mapping[str, float]) -> None:
            advance(step, steps, f"loss {metrics['loss']:.3f}")

        result = run_demo(out, seed=seed, steps=steps, progress=tell)
    if json:
        show_json(result.to_dict())
        return
    spellings = list(next(iter(result.template_accuracy.values())))
    show(
        table(
            ("TEMPLATE", *(spelling.upper() for spelling in spellings)),
            [
                (template, *(f"{shares[spelling]:.1%}" for spelling in spellings))
                for template, shares in result.template_accuracy.items()
            ],
            right=[spelling.upper() for spelling in spellings],
        ),
        "",
        f"accuracy {result.accuracy:.1%} on {result.test_digits} new digits, after {result.seconds:.0f} s",
        f"model: {result.folder}",
        f"picture: {result.picture}",
        "",
        "next:",
        _next_command(result),
    )


def _next_command(result: DemoResult) -> str:
    """Return a command that asks the new model about a digit that it was not trained on."""
    from zoo.demo.settings import WORDS

    template = max(result.template_accuracy, key=lambda template: result.template_accuracy[template]["word"])
    called = Path(sys.argv[0])
    by_path = called.name == "zoo" and which("zoo") is None  # of an environment that is not activated
    words = [str(called) if by_path else "zoo", "classify", str(result.samples[7]), "--model", str(result.folder)]
    return shlex.join([*words, "--labels", ",".join(WORDS), "--template", template])
