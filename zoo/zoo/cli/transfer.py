"""The commands `zoo convert`, `import`, `pull` and `push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["convert_command", "import_command", "pull_command", "push_command"]


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
