"""The command `zoo embed`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.options import Device, Dtype, MaxPixels, Model, ModelChoice, Pretrained
from zoo.cli.output import progress, report, report_warning

if TYPE_CHECKING:
    from zoo.embeddings.writers import Writer
    from zoo_core.errors import ZooError

__all__ = ["embed_command"]


def embed_command(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Images or folders; - reads paths from stdin.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="Ends in .npy or .parquet, or is a folder.")],
    model: Model = None,
    pretrained: Pretrained = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images that go through the model at a time.")] = 32,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads that read images.")] = None,
    max_pixels: MaxPixels = None,
    device: Device = None,
    dtype: Dtype = None,
    modality: Annotated[str, typer.Option(metavar="NAME", help="What the files hold, if not images.")] = "image",
    text: Annotated[bool, typer.Option("--text", help="Paths are text files with a caption a line.")] = False,
    overflow: Annotated[str, typer.Option(help="Captions that are too long: warn, truncate or error.")] = "warn",
    force: Annotated[bool, typer.Option("--force", help="Replace the file if there is one.")] = False,
) -> None:
    """Write embeddings of images or captions to a file, or add them to a folder.

    They are float32 and have unit norm. An .npy file holds the rows, a file .ids.txt beside it their ids, one
    a line, and .model.json whose they are: model, config with the engine of preprocessing, dtype and digest of the
    weights. A .parquet file has columns id and embedding, and the same in its metadata. The id of an image is its
    path, that of a caption the caption.

    A folder is filled with Parquet files as the job goes on; the id of an image is then its absolute path. What is
    there is not embedded again, so a job that was killed goes on where it was. What failed before is tried again, and
    an image of another size or time is embedded anew. Another model is refused, and so are captions in a folder of
    images.
    """
    from zoo.catalog.architectures import registry
    from zoo.embeddings.encode import Pace, embed_files, embed_texts, expect_modality, identity
    from zoo.embeddings.image_folders import PassedOver
    from zoo.embeddings.inputs import find_images, read_captions
    from zoo.embeddings.store import open_output
    from zoo.embeddings.writers import check_ids, check_output
    from zoo_core.errors import InputError
    from zoo_core.text.truncation import checked_overflow, report_once

    choice = ModelChoice.of(model, pretrained)
    check_output(out, force=force)
    policy = checked_overflow(overflow)
    if text and modality != "image":
        raise InputError("--text and --modality exclude each other: captions are text")
    files = "images" if modality == "image" else "files"
    passed_over = PassedOver()
    try:
        items = read_captions(paths) if text else find_images(paths, passed_over, registry().modality(modality))
    finally:
        for sentence in passed_over.sentences():
            report_warning(sentence)
    check_ids(out, items)
    built = choice.open(device=device, dtype=dtype, max_pixels=max_pixels)
    expect_modality(built, "text" if text else modality)
    width, pace = built.config.embed_dim, Pace(files=files)
    facts = identity(built, choice.source, choice.pretrained)
    with (
        open_output(out, width, facts, of_files=not text, modality=modality) as file,
        progress("embedding") as advance,
        report_once(),
    ):

        def refuse(path: str, error: ZooError) -> None:
            file.refuse(path, error)
            report(str(error))

        rest = file.remaining(items)
        batches = (
            embed_texts(built, rest, overflow=policy, pace=pace)
            if text
            else embed_files(built, modality, rest, batch_size=batch_size, workers=workers, refused=refuse, pace=pace)
        )
        for ids, rows in batches:
            with pace.spent("writing"):
                file.add(ids, rows)
            advance(file.kept + file.count + file.refused, file.kept + len(rest), str(pace))
    if file.count or file.kept:
        speed = f", {pace}" if file.count else ""
        typer.echo(f"{out}: {_summary(file, width, files)}{speed}; {choice}")
    if file.refused:
        report(f"skipped {file.refused} of {len(items)} {files} that cannot be read")
    if file.refused or passed_over.lost:
        raise typer.Exit(1)


def _summary(file: Writer, width: int, files: str) -> str:
    summary = f"{file.count} embeddings of width {width}"
    if file.changed:
        summary += f", {file.changed} of them of {files} that changed"
    if file.kept:
        summary += f", beside {file.kept} that were there"
    if file.gone:
        summary += f" ({file.gone} of {files} that are gone)"
    if file.failed_before:
        summary += f"; {file.failed_before} of other runs failed"
    return summary
