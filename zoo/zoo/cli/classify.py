"""The command `zoo classify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.options import Device, Dtype, MaxPixels, Model, ModelChoice, Pretrained
from zoo.cli.output import report, report_warning, show, show_json
from zoo.cli.tables import table

if TYPE_CHECKING:
    from zoo.evaluation.zero_shot import Classified
    from zoo_core.errors import ZooError

__all__ = ["classify_command"]


def classify_command(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")],
    labels: Annotated[
        str, typer.Option(metavar="LABELS", help="With commas between them, 'cat,dog', or @FILE with one a line.")
    ],
    model: Model = None,
    pretrained: Pretrained = None,
    template: Annotated[str, typer.Option(help="Caption with {} for the label, or imagenet-80.")] = "a photo of a {}",
    max_pixels: MaxPixels = None,
    device: Device = None,
    dtype: Dtype = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell which of some labels fits an image best."""
    from zoo.embeddings.image_folders import PassedOver
    from zoo.embeddings.inputs import find_images
    from zoo.evaluation.labels import parse_labels
    from zoo.evaluation.zero_shot import classify

    choice = ModelChoice.of(model, pretrained)
    names = parse_labels(labels)
    passed_over = PassedOver()
    try:
        files = [
            file for path in images for file in (find_images([path], passed_over) if Path(path).is_dir() else [path])
        ]
    finally:
        for sentence in passed_over.sentences():
            report_warning(sentence)
    built = choice.open(device=device, dtype=dtype, max_pixels=max_pixels)
    refused: list[dict[str, str]] = []

    def refuse(path: str, error: ZooError) -> None:
        refused.append({"image": path, "error": str(error)})
        report(str(error))

    results: list[Classified] = []
    for result in classify(built, files, names, template=template, refused=refuse):
        if not json:
            title = "" if results else f"{choice}\n"
            rows = [(f"{share:.1%}", label) for label, share in result.probabilities.items()]
            show(f"{title}{result.image}", table(("PROBABILITY", "LABEL"), rows, right=("PROBABILITY",)))
        results.append(result)
    if json:
        outcomes = [*(result.to_dict() for result in results), *refused]
        show_json([choice.to_dict() | outcome for outcome in outcomes])
    if refused or passed_over.lost:
        raise typer.Exit(1)
