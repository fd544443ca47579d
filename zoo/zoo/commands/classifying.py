"""`zoo classify`: which of some labels fits a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from zoo.commands.options import Device, Dtype, dtype_named
from zoo.commands.output import report, show, show_json, table

if TYPE_CHECKING:
    from zoo.classification import Classified
    from zoo_core.errors import ZooError

__all__ = ["DEMO_MODEL", "classify_command", "default_tag"]

DEMO_MODEL = "digits-tiny"
DEMO_TAG = "demo"
"""The weights that ship with zoo, so that the first command of a newcomer has an answer."""


def classify_command(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Image files.")],
    labels: Annotated[
        str, typer.Option(metavar="LABELS", help="With commas between them, 'cat,dog', or @FILE with one a line.")
    ],
    model: Annotated[str, typer.Option(help="An architecture, or a saved folder.")] = DEMO_MODEL,
    pretrained: Annotated[str | None, typer.Option(help="A tag (see zoo info) or a safetensors file.")] = None,
    template: Annotated[str, typer.Option(help="Caption with {} for the label, or imagenet-80.")] = "a photo of a {}",
    device: Device = None,
    dtype: Dtype = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell which of some labels fits an image best."""
    from zoo.classification import classify, parse_labels
    from zoo.embedding import open_model

    choice = parse_labels(labels)
    built = open_model(model, default_tag(model, pretrained), device=device, dtype=dtype_named(dtype))
    refused: list[dict[str, str]] = []

    def refuse(path: str, error: ZooError) -> None:
        refused.append({"image": path, "error": str(error)})
        report(str(error))

    found: list[Classified] = []
    for one in classify(built, images, choice, template=template, refused=refuse):
        found.append(one)
        if not json:
            _show(one)
    if json:
        show_json([*(one.to_dict() for one in found), *refused])
    if refused:
        raise typer.Exit(1)


def default_tag(model: str, pretrained: str | None) -> str | None:
    """Return the tag to take: the model that ships with weights has one of its own."""
    return DEMO_TAG if pretrained is None and model == DEMO_MODEL else pretrained


def _show(one: Classified) -> None:
    rows = [(f"{share:.1%}", label) for label, share in one.probabilities.items()]
    show(one.image, table(("PROBABILITY", "LABEL"), rows, right=("PROBABILITY",)))
