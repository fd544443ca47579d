"""Zero-shot classification of images (Radford et al. 2021).

A label becomes the mean of the features of several captions about it, each of unit norm, and so is their mean.
Probabilities are those that the model was trained to give: those of a model with a logit bias (SigLIP) answer yes or no
for each label and need not add up to 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, cast

from zoo.embeddings.encode import Refused, embed_images
from zoo.evaluation.calibration import Calibration, fit, tensor_of
from zoo.evaluation.labels import Labels, names_of
from zoo.evaluation.templates import TEMPLATE, Template, caption_of, check_templates
from zoo_core.boundary import checked
from zoo_core.errors import InputError
from zoo_core.text.truncation import Overflow, report_once

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from zoo_core.models.dual_encoder import DualEncoder

__all__ = ["Classified", "ZeroShotClassifier", "classify"]

PROMPTS = 8_192
"""Captions that are encoded at a time."""


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


class ZeroShotClassifier:
    """Tells which of some labels fits a picture.

    Args:
        model: built by `zoo.build`, with both towers.
        labels: what to choose from, each once; or a mapping from ids to names, where a class has several names
            (`{"n02124075": ["Egyptian cat", "mau"]}`) or two classes have one. The 1000 names of ImageNet that the
            field uses hold "missile" and "sunglasses" twice: `dict(enumerate(names))` numbers them.
        templates: captions in which `{}` stands for the label, functions that make a caption of a label, or the name of
            a set of captions (`template_sets`).
        overflow: what happens to captions that are too long, as in `encode_text`.

    Attributes:
        labels: the labels, in order; the ids of a mapping, as strings.
        names: the names of each label. Classes of the same names have the same features and probabilities.
        templates: the captions and functions.
        class_features: unit-norm feature of each label `[C, D]`, on the device and in the dtype that the model had.
        calibration: what `calibrate` found; None before.

    Raises:
        InputError: a label is there twice, a template has no `{}`, or a softmax would have one label to choose from.
        UnknownNameError: there is no such set of templates.
    """

    calibration: Calibration | None = None

    @checked
    def __init__(
        self,
        model: DualEncoder,
        labels: Labels,
        templates: Template | Iterable[Template] = TEMPLATE,
        *,
        overflow: Overflow = "warn",
    ) -> None:
        from zoo_core.models.dual_encoder import dual_encoder_of

        self.model = model  # as it came: a compiled one is the faster
        names = names_of(labels, dual_encoder_of(model).scoring)
        self.labels, self.names = list(names), list(names.values())
        self.templates = check_templates(templates)
        self.class_features = _class_features(model, self.names, self.templates, overflow)

    def __repr__(self) -> str:
        sizes = f"{len(self.labels)} labels, {len(self.templates)} templates, {self.model.scoring}"
        return f"{type(self).__name__}({sizes}{', calibrated' if self.calibration else ''})"

    @checked
    def similarity(self, images: Any) -> Tensor:
        """Return the cosine of each image and each label `[B, C]`; `images` is as in `encode_image`."""
        features, class_features = self._with_class_features(_image_features(self.model, images))  # [B, D], [C, D]
        return features @ class_features.T

    @checked
    def probabilities(self, images: Any) -> Tensor:
        """Return the probability of each label for each image, float32 `[B, C]`; `images` is as in `encode_image`.

        A softmax over the labels or a sigmoid for each, as the model was trained; calibrated after `calibrate`.
        """
        return self._probabilities(_image_features(self.model, images))

    @checked
    def top(self, images: Any, k: int = 5) -> list[list[tuple[str, float]]]:
        """Return the `k` likeliest labels of each image with their probabilities; all where there are fewer.

        Raises:
            InputError: `k` is less than 1.
        """
        return self._ranked(self.probabilities(images), k)

    @checked
    def stream(self, images: Iterable[Any], k: int = 5, *, batch_size: int = 32) -> Iterator[list[tuple[str, float]]]:
        """Yield for one image after the other what `top` gives, `batch_size` images at a time.

        Raises:
            InputError: `k` or `batch_size` is less than 1.
        """
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, found {batch_size}")
        remaining = iter(images)
        while batch := list(islice(remaining, batch_size)):
            yield from self.top(batch, k)

    @checked
    def calibrate(self, images: Any, targets: Sequence[int] | Tensor | NDArray[Any]) -> Calibration:
        """Fit the scale of the cosines (and, for sigmoids, the bias) to labelled images, by maximum likelihood.

        The ranking of labels stays as it is; from here on, probabilities are those of the fit.

        Args:
            images: as in `encode_image`, or unit-norm image features `[N, D]`. Not those that are to be judged by it.
            targets: number of the right label of each, `[N]`.

        Raises:
            InputError: there is not one target for each image, or no label of its number.
        """
        import torch

        are_features = isinstance(images, torch.Tensor) and images.ndim == 2
        features = images if are_features else _image_features(self.model, images)
        features, class_features = self._with_class_features(features.float())  # [N, D], [C, D]
        width = class_features.shape[1]
        if features.shape[1] != width:
            raise InputError(
                f"images: expected images, or unit-norm features [N, {width}], found {list(features.shape)}"
            )
        cosines = (features @ class_features.T).double().cpu()  # [N, C]
        self.calibration = fit(cosines, tensor_of(targets, "targets").cpu(), self.model.scoring)
        return self.calibration

    def _probabilities(self, features: Tensor) -> Tensor:
        import torch

        with torch.no_grad():
            features, class_features = self._with_class_features(features)  # [B, D], [C, D]
            if self.calibration is None:
                return self.model.feature_probabilities(features, class_features)
            logits = (features @ class_features.T).float() * self.calibration.scale + self.calibration.bias  # [B, C]
            return logits.softmax(dim=-1) if self.model.scoring == "softmax" else logits.sigmoid()

    def _with_class_features(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and class features in one dtype on one device, since the model may have been moved."""
        import torch

        dtype = torch.promote_types(features.dtype, self.class_features.dtype)
        return features.to(dtype), self.class_features.to(features.device, dtype)

    def _ranked(self, probabilities: Tensor, k: int | None = None) -> list[list[tuple[str, float]]]:
        if k is not None and k < 1:
            raise InputError(f"k must be at least 1, found {k}")
        rows = cast("list[list[float]]", probabilities.tolist())  # pyright: ignore[reportUnknownMemberType]
        return [sorted(zip(self.labels, row, strict=True), key=itemgetter(1), reverse=True)[:k] for row in rows]

    @checked
    def classify(self, paths: Sequence[str], *, refused: Refused) -> Iterator[Classified]:
        """Yield the probabilities of the labels for each image file, in order.

        Args:
            paths: image files.
            refused: called with the path and the reason for every image that cannot be read; it is left out.
        """
        import torch

        for batch, features in embed_images(self.model, paths, refused=refused):
            for path, ranked in zip(batch, self._ranked(self._probabilities(torch.tensor(features))), strict=True):
                yield Classified(path, dict(ranked))


def classify(
    model: DualEncoder, images: Sequence[str], labels: Labels, *, template: str = TEMPLATE, refused: Refused
) -> Iterator[Classified]:
    """Yield the probabilities of the labels for each image file, in order; see `ZeroShotClassifier`.

    Args:
        model: built by `zoo.build`.
        images: image files.
        labels: what to choose from, as in `ZeroShotClassifier`.
        template: caption in which `{}` stands for the label, or the name of a set of them.
        refused: called with the path and the reason for every image that cannot be read; it is left out.
    """
    return ZeroShotClassifier(model, labels, template).classify(images, refused=refused)


def _image_features(model: DualEncoder, images: Any) -> Tensor:
    import torch

    with torch.inference_mode():
        return model.encode_image(images, normalize=True)


def _class_features(
    model: DualEncoder, names: Sequence[Sequence[str]], templates: Sequence[Template], overflow: Overflow
) -> Tensor:
    """Return the unit-norm mean of the unit-norm features of each label's captions, `[C, D]`."""
    import torch
    import torch.nn.functional as F

    labels_at_once = max(1, PROMPTS // (len(templates) * max(map(len, names))))
    means: list[Tensor] = []
    with torch.no_grad(), report_once():  # no inference mode: the features may become weights that are trained
        for start in range(0, len(names), labels_at_once):
            captions = [
                [caption_of(name, template) for name in label_names for template in templates]
                for label_names in names[start : start + labels_at_once]
            ]
            features = model.encode_text(
                [caption for of_label in captions for caption in of_label], normalize=True, overflow=overflow
            )
            sizes = [len(of_label) for of_label in captions]
            by_label = torch.split(features, sizes)  # pyright: ignore[reportUnknownMemberType]
            means += [of_label.mean(dim=0) for of_label in by_label]
        return F.normalize(torch.stack(means), dim=-1)  # [C, D]
