"""Zero-shot classification: which of some labels fits a picture (Radford et al. 2021).

Probabilities are those that the model was trained to give: those of a model with a logit bias (SigLIP) answer yes or no
for each label and need not add up to 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, cast

from zoo.embedding import Refused, embed_images
from zoo_core.errors import InputError

if TYPE_CHECKING:
    from zoo_core.dual_encoder import DualEncoder

__all__ = ["TEMPLATE", "Classified", "classify", "parse_labels"]

TEMPLATE = "a photo of a {}"


@dataclass(frozen=True)
class Classified:
    """The probability of every label for one image, the likeliest first."""

    image: str
    probabilities: dict[str, float]

    @property
    def label(self) -> str:
        """The likeliest label."""
        return next(iter(self.probabilities))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and the likeliest label, ready for JSON."""
        return {"image": self.image, "label": self.label, "probabilities": self.probabilities}


def parse_labels(text: str) -> list[str]:
    """Return the labels of `"cat, dog"`.

    Raises:
        InputError: there is none, or one stands there twice.
    """
    labels = [label.strip() for label in text.split(",") if label.strip()]
    if not labels:
        raise InputError(f"labels: expected names with commas between them, such as 'cat,dog', found {text!r}")
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise InputError(f"labels: {', '.join(twice)} is there twice; give each label once")
    return labels


def classify(
    model: DualEncoder,
    images: Sequence[str],
    labels: Sequence[str],
    *,
    template: str = TEMPLATE,
    refused: Refused,
) -> Iterator[Classified]:
    """Yield the probabilities of the labels for each image, in order.

    Args:
        model: built by `zoo.build`.
        images: image files.
        labels: what to choose from.
        template: caption in which `{}` stands for the label.
        refused: called with the path and the reason for every image that cannot be read; it is left out.

    Raises:
        InputError: the template has no `{}`, or a softmax would have one label only, which is sure to win.
    """
    import torch

    if "{}" not in template:
        raise InputError(f"template: '{{}}' has to stand where the label goes, found {template!r}")
    if model.scoring == "softmax" and len(labels) < 2:
        raise InputError(f"labels: expected at least two to choose from, found {len(labels)}")
    with torch.inference_mode():
        captions = model.encode_text([template.replace("{}", label) for label in labels], normalize=True)
    for paths, features in embed_images(model, images, refused=refused):
        with torch.inference_mode():
            likely = model.feature_probabilities(torch.tensor(features).to(captions), captions)
        rows = cast("list[list[float]]", likely.tolist())  # pyright: ignore[reportUnknownMemberType]
        for path, row in zip(paths, rows, strict=True):
            ranked = sorted(zip(labels, row, strict=True), key=itemgetter(1), reverse=True)
            yield Classified(path, dict(ranked))
