"""`zoo embed`: a file of embeddings from images or captions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.commands.classifying import DEMO_MODEL, default_tag
from zoo.commands.output import progress, report

if TYPE_CHECKING:
    from zoo_core.errors import ZooError

__all__ = ["embed_command"]


def embed_command(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Images, or folders of images.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Ends in .npy or .parquet.")],
    model: Annotated[str, typer.Option(help="An architecture, or a saved folder.")] = DEMO_MODEL,
    pretrained: Annotated[str | None, typer.Option(help="A tag (see zoo info) or a safetensors file.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="How many go through the model at a time.")] = 32,
    text: Annotated[bool, typer.Option("--text", help="Paths are text files with a caption a line.")] = False,
) -> None:
    """Write embeddings of images or captions to a file.

    They are float32 and have unit norm. An .npy file holds the rows, and a file .ids.txt beside it their
    ids, one a line; a .parquet file has columns id and embedding. The id of an image is its path, that of a
    caption the caption.
    """
    from zoo.embedding import embed_images, embed_texts, find_images, identity, open_model, read_captions
    from zoo.embedding_files import check_output, writer

    check_output(out)
    items = read_captions(paths) if text else find_images(paths)
    tag = default_tag(model, pretrained)
    built = open_model(model, tag)
    assert built.config is not None  # zoo.build gives every model its config
    width = built.config.embed_dim
    refused: list[str] = []

    def refuse(path: str, error: ZooError) -> None:
        refused.append(path)
        report(str(error))

    with writer(out, width, identity(built, model, tag)) as file, progress("embedding") as advance:
        batches = (
            embed_texts(built, items, batch_size=batch_size)
            if text
            else embed_images(built, items, batch_size=batch_size, refused=refuse)
        )
        for ids, rows in batches:
            file.add(ids, rows)
            advance(file.count + len(refused), len(items))
    if file.count:
        typer.echo(f"{out}: {file.count} embeddings of width {width}")
    if refused:
        report(f"skipped {len(refused)} of {len(items)} images that cannot be read")
        raise typer.Exit(1)
