"""The commands `zoo pull` and `zoo push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["pull_command", "push_command"]


def pull_command(
    source: Annotated[
        str, typer.Argument(metavar="NAME[:TAG]", help="An architecture and a tag, or hf-hub:organisation/name.")
    ],
    to: Annotated[Path, typer.Option(metavar="DIR", help="The folder; a saved model that is there is replaced.")],
) -> None:
    """Write a folder that holds all of a pretrained model and needs no network.

    Weights, architecture, preprocessing and tokenizer; zoo.build(DIR) then asks nobody for anything.
    """
    from zoo.transfer.pull import pull

    typer.echo(f"{pull(source, to)}: ok")


def push_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A model that zoo.save or zoo pull wrote.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="organisation/name; made if there is none.")],
    private: Annotated[
        bool | None, typer.Option("--private/--public", help="Of a new repository; as the account says if not given.")
    ] = None,
    revision: Annotated[str | None, typer.Option(metavar="BRANCH", help="Write to this branch.")] = None,
) -> None:
    """Write a saved model to a repository of the Hugging Face Hub, in one commit."""
    from zoo.transfer.push import push_to_hub

    typer.echo(push_to_hub(folder, repo, private=private, revision=revision))
