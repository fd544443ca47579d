"""The commands `zoo validate`, `schema`, `verify` and `identify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.options import Device, Dtype, dtype_named
from zoo.cli.output import report, show, show_json
from zoo.cli.tables import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo.checkpoints.ranking import Candidate
    from zoo_core.errors import Problem

__all__ = ["identify_command", "schema_command", "validate_command", "verify_command"]


def validate_command(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Architecture YAML files.")],
    override: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A change to check with; may be repeated.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check architecture files.

    Each problem is printed as file:line:column: key: message; the exit status is 1 if there is any.
    """
    from dataclasses import asdict

    from zoo.catalog.architectures import load_config
    from zoo_core.errors import ConfigError, Problem, ZooError

    problems_of: dict[Path, tuple[Problem, ...]] = {}
    for file in files:
        problems_of[file] = ()
        try:
            load_config(file, override or [])
        except ConfigError as error:
            problems_of[file] = error.problems
        except ZooError as error:  # of another kind, which names no key
            problems_of[file] = (Problem(str(error), source=str(file)),)
    if json:
        show_json(
            [
                {"file": str(file), "ok": not problems, "problems": [asdict(problem) for problem in problems]}
                for file, problems in problems_of.items()
            ]
        )
    else:
        for file, problems in problems_of.items():
            typer.echo("\n".join(map(str, problems)) if problems else f"{file}: ok")
    if any(problems_of.values()):
        raise typer.Exit(1)


def schema_command(
    output: Annotated[Path | None, typer.Option(help="Write the schema to this file.")] = None,
) -> None:
    """Print JSON Schema of architecture files."""
    from zoo.catalog.architectures import registry
    from zoo_core.config.json_schema import architecture_schema

    schema = architecture_schema(registry())
    if output is None:
        show_json(schema)
        return
    from json import dumps

    from zoo_core.files.atomic import atomic_write

    with atomic_write(output) as (scratch,):
        scratch.write_text(dumps(schema, indent=2) + "\n", encoding="utf-8")


def verify_command(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A model that zoo.save wrote.")],
    device: Device = None,
    dtype: Dtype = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare a saved model with what was saved.

    Every file is compared with its digest, and the model, on this device and in this dtype, with its probe. The exit
    status is 1 if a part differs.
    """
    from dataclasses import asdict

    from zoo.building.load import verify

    findings = verify(folder, device=device, dtype=dtype_named(dtype))
    if json:
        show_json([asdict(finding) for finding in findings])
    else:
        words = {True: "ok", False: "differs", None: "not checked"}
        rows = [(finding.part, words[finding.ok], finding.detail) for finding in findings]
        show(table(("part", "result", "detail"), rows))
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(1)


def identify_command(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Weights of any container, or a folder with them.")],
    weights: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which of several state dicts: ema, or its name in the file.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many architectures to show.")] = 5,
    architecture: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="A YAML file or a saved folder to rank; may be repeated.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, with every entry that does not fit.")] = False,
) -> None:
    """Tell which architectures a file of weights fits, from its names and shapes.

    The exit status is 1 if no architecture fits in every entry.
    """
    from dataclasses import asdict

    from zoo.building.identify import identify

    candidates = identify(path, limit=limit, weights=weights, architectures=architecture or ())
    if json:
        show_json([asdict(candidate) for candidate in candidates])
    elif not candidates:
        report(f"{path}: no architecture known here is near; name yours with --architecture FILE")
    else:
        _show_candidates(candidates)
    if not candidates or candidates[0].fit < 1:
        raise typer.Exit(1)


def _show_candidates(candidates: Sequence[Candidate]) -> None:
    counts = ("missing", "unexpected", "other shape")
    rows = [
        (
            f"{candidate.fit:.1%}",
            ", ".join(candidate.names)
            + (f" ({candidate.towers[0]} tower alone)" if len(candidate.towers) == 1 else ""),
            len(candidate.missing),
            len(candidate.unexpected),
            len(candidate.misshapen),
        )
        for candidate in candidates
    ]
    show(table(("fit", "architectures", *counts), rows, right=("fit", *counts)))
    best = candidates[0]
    for key, values in best.untold.items():
        choices = ", ".join(f"{name}: {value}" for name, value in zip(best.names, values, strict=True))
        typer.echo(f"names and shapes cannot tell {key} ({choices})")
