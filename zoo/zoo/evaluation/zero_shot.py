"""Zero-shot classification: which of some labels fits a picture (Radford et al. 2021).

A label becomes the mean of the features of several captions about it, each of unit norm, and so is their mean. A class
that has an id, several names, or a name that another class has too, is an item of a mapping.
Probabilities are those that the model was trained to give: those of a model with a logit bias (SigLIP) answer yes or no
for each label and need not add up to 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from zoo.embeddings.encode import Refused, embed_images, read_captions
from zoo.evaluation.calibration import Calibration, fit, tensor_of
from zoo_core.boundary import checked
from zoo_core.errors import InputError, UnknownNameError, describe, did_you_mean, reason
from zoo_core.text.truncation import Overflow, report_once

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from zoo_core.models.dual_encoder import DualEncoder

__all__ = [
    "TEMPLATE",
    "Classified",
    "Template",
    "ZeroShotClassifier",
    "classify",
    "parse_labels",
    "template_set",
    "template_sets",
]

Labels = Iterable[str] | Mapping[str, str | Sequence[str]] | Mapping[int, str | Sequence[str]]
"""Names, each once; or the name or names of each class by its id, a string or a number."""

Template = str | Callable[[str], str]
"""A caption in which `{}` stands for the label, or what makes a caption of a label."""

TEMPLATE = "a photo of a {}"
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
        names = _checked_labels(labels, dual_encoder_of(model).scoring)
        self.labels, self.names = list(names), list(names.values())
        self.templates = _checked_templates(templates)
        self.class_features = _class_features(model, self.names, self.templates, overflow)

    def __repr__(self) -> str:
        told = f"{len(self.labels)} labels, {len(self.templates)} templates, {self.model.scoring}"
        return f"{type(self).__name__}({told}{', calibrated' if self.calibration else ''})"

    @checked
    def similarity(self, images: Any) -> Tensor:
        """Return the cosine of each image and each label `[B, C]`; `images` is as in `encode_image`."""
        features, known = self._beside(_image_features(self.model, images))
        return features @ known.T

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
        rest = iter(images)
        while batch := list(islice(rest, batch_size)):
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

        known = isinstance(images, torch.Tensor) and images.ndim == 2
        features = images if known else _image_features(self.model, images)
        features, labels = self._beside(features.float())
        if features.shape[1] != labels.shape[1]:
            told = f"[N, {labels.shape[1]}], found {list(features.shape)}"
            raise InputError(f"images: expected pictures, or unit-norm features {told}")
        cosines = (features @ labels.T).double().cpu()
        self.calibration = fit(cosines, tensor_of(targets, "targets").cpu(), self.model.scoring)
        return self.calibration

    def _probabilities(self, features: Tensor) -> Tensor:
        import torch

        with torch.no_grad():
            features, known = self._beside(features)
            if self.calibration is None:
                return self.model.feature_probabilities(features, known)
            logits = (features @ known.T).float() * self.calibration.scale + self.calibration.bias
            return logits.softmax(dim=-1) if self.model.scoring == "softmax" else logits.sigmoid()

    def _beside(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return features of images and of the labels in one dtype and in one place: the model may have been moved."""
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


def parse_labels(text: str) -> list[str]:
    """Return the labels of `"cat, dog"`, or of `"@labels.txt"`, a file with a label a line, which may hold commas.

    Raises:
        InputError: there is none, or one stands there twice, or the file cannot be read.
    """
    listed = read_captions([text[1:]]) if text.startswith("@") else text.split(",")
    labels = [label.strip() for label in listed if label.strip()]
    if not labels:
        raise InputError(f"labels: expected names with commas between them, such as 'cat,dog', found {describe(text)}")
    if labels[0] == text.strip() and text.endswith(".txt") and Path(labels[0]).is_file():
        raise InputError(f"labels: {describe(labels[0])} is a file; write @{labels[0]} for the labels in it")
    _expect_once(labels)
    return labels


def template_sets() -> tuple[str, ...]:
    """Return the names of the sets of templates that come with zoo."""
    return tuple(sorted(one.name.removesuffix(".txt") for one in files("zoo").joinpath("templates").iterdir()))


@cache
def template_set(name: str) -> tuple[str, ...]:
    """Return the templates of a set.

    Raises:
        UnknownNameError: there is no such set; the nearest is named.
    """
    if name not in template_sets():
        raise UnknownNameError(f"there is no set of templates {describe(name)}{did_you_mean(name, template_sets())}")
    lines = files("zoo").joinpath("templates", f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if not line.startswith("#"))


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

    at_once = max(1, PROMPTS // (len(templates) * max(map(len, names))))
    means: list[Tensor] = []
    with torch.no_grad(), report_once():  # no inference mode: the features may become weights that are trained
        for start in range(0, len(names), at_once):
            prompts = [
                [_prompt(template, name) for name in some for template in templates]
                for some in names[start : start + at_once]
            ]
            features = model.encode_text([one for some in prompts for one in some], normalize=True, overflow=overflow)
            sizes = [len(some) for some in prompts]
            means += [some.mean(dim=0) for some in torch.split(features, sizes)]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        return F.normalize(torch.stack(means), dim=-1)


def _prompt(template: Template, label: str) -> str:
    if isinstance(template, str):
        return template.replace("{}", label)
    try:
        made: object = template(label)
    except Exception as error:
        told = f"template: {describe(template)} failed for {describe(label)}: {reason(error, 100)}"
        raise InputError(told) from error
    if not isinstance(made, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(
            f"template: {describe(template)} must make a string of {describe(label)}, found {type(made).__name__}"
        )
    return made


def _checked_labels(labels: Labels, scoring: str) -> dict[str, tuple[str, ...]]:
    """Return the names of each label."""
    if isinstance(labels, Mapping):
        classes = cast("Mapping[object, object]", labels)
        names = {str(label): _checked_names(label, given) for label, given in classes.items()}
        if len(names) < len(classes):
            raise InputError("labels: two ids are the same as strings; give each class an id of its own")
    else:
        unordered = isinstance(labels, str | Set)
        known: list[object] = [] if unordered else list(labels)
        if unordered or not all(isinstance(label, str) for label in known):
            told = describe(cast("object", labels))
            raise InputError(f"labels: expected a list of strings, in the order of the scores, found {told}")
        listed = cast("list[str]", known)
        _expect_once(listed)
        names = {label: (label,) for label in listed}
    needed = 2 if scoring == "softmax" else 1
    if len(names) < needed:
        told = "two" if needed == 2 else "one"
        raise InputError(f"labels: expected at least {told} to choose from, found {len(names)}")
    return names


def _checked_names(label: object, given: object) -> tuple[str, ...]:
    listed = isinstance(given, list | tuple)
    names = tuple(cast("Sequence[object]", given)) if listed else (given,)
    if not isinstance(label, str | int) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"labels: expected a name or a list of names for each id, found {describe(given)} for {describe(label)}"
        )
    return cast("tuple[str, ...]", names)


def _expect_once(labels: list[str]) -> None:
    twice = sorted(label for label, count in Counter(labels).items() if count > 1)
    if twice:
        several = f"{', '.join(twice[:6])} {'is' if len(twice) == 1 else 'are'} there twice"
        raise InputError(
            f"labels: {several}; give each label once, or, where they are different classes, a mapping from ids to "
            "names, such as dict(enumerate(labels))"
        )


def _checked_templates(templates: Template | Iterable[Template]) -> tuple[Template, ...]:
    if isinstance(templates, str):
        known = (templates,) if "{}" in templates or " " in templates else template_set(templates)
    else:
        known = (templates,) if callable(templates) else tuple(templates)
    if not known:
        raise InputError("templates: expected at least one caption with '{}' in it, found none")
    for template in known:
        if not isinstance(template, str) and not callable(template):
            raise InputError(
                f"template: expected a caption with '{{}}' in it or a function, found {describe(template)}"
            )
        if isinstance(template, str) and "{}" not in template:
            raise InputError(f"template: '{{}}' has to stand where the label goes, found {describe(template)}")
    return known
