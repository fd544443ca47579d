"""The command `zoo demo`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.output import progress, show, show_json
from zoo.cli.tables import table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoo.demo import DemoResult

__all__ = ["demo_command"]


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
