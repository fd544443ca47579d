"""The command `zoo import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["import_command"]


def import_command(
    format: Annotated[str, typer.Argument(metavar="FORMAT", help="Whose config it is, such as open_clip.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The config.")],
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the YAML to this file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if there is one.")] = False,
) -> None:
    """Turn another library's config into an architecture.

    What cannot be expressed is refused: every such key is named. Defaults are left out.
    """
    from zoo.transfer.import_config import as_yaml, import_architecture, write_architecture

    architecture = import_architecture(format, file)
    if output is None:
        typer.echo(as_yaml(architecture), nl=False)
    else:
        write_architecture(architecture, output, force=force)
        typer.echo(f"{output}: ok")
