"""The command `zoo convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["convert_command"]


def convert_command(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A folder with a model, NAME:TAG, an architecture, or a file.")
    ],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write.")],
    to: Annotated[str, typer.Option(metavar="LIBRARY", help="zoo, open_clip or transformers.")] = "zoo",
    pretrained: Annotated[str | None, typer.Option(help="Weights of an architecture: a tag or a file.")] = None,
    architecture: Annotated[str | None, typer.Option(help="What the weights of a file belong to.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the architecture; may be repeated.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the folder if there is one.")] = False,
) -> None:
    """Write a model as a folder that another library loads.

    What the library cannot express is refused: every such option and tensor is named.
    """
    from zoo.transfer.convert import convert

    written = convert(
        source,
        folder,
        to=to,
        pretrained=pretrained,
        architecture=architecture,
        overrides=overrides or (),
        force=force,
    )
    typer.echo(f"{written}: ok")
