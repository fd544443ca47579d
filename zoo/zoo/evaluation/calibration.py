"""Calibration of zero-shot probabilities to labelled images.

It fits the scale of the cosines, and for sigmoids the bias, by maximum likelihood. A softmax has one number to fit, its
temperature (Guo et al. 2017), and sigmoids have two, as in Platt scaling. Both likelihoods are convex in them, so that
Newton's method finds the one best fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from zoo_core.errors import InputError, describe, reason

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from zoo_core.models.dual_encoder import Scoring

__all__ = ["Calibration", "fit", "tensor_of"]

TOLERANCE = 1e-9
"""A fit ends with a step as short as this."""
MIN_SCALE, MAX_SCALE = 0.01, 1e4
"""Bounds of the scale: larger is ever likelier where all images are told apart, smaller where they are told wrong."""


Likelihood = tuple["Tensor", "Tensor", "Tensor"]


def tensor_of(values: Sequence[int] | Tensor | NDArray[Any], name: str) -> Tensor:
    """Return numbers as a tensor.

    Raises:
        InputError: they are none that torch knows; `name` says what they are.
    """
    import torch

    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise InputError(f"{name}: expected numbers, found {describe(values)}: {reason(error, 100)}") from None


@dataclass(frozen=True)
class Calibration:
    """Logits are `cosine * scale + bias`; `loss` is the mean negative log-likelihood of the images that were fitted."""

    scale: float
    bias: float
    loss: float


def fit(cosines: Tensor, targets: Tensor, scoring: Scoring) -> Calibration:
    """Fit scale and bias.

    Args:
        cosines: float64 `[N, C]` of images and labels.
        targets: number of the right label of each image, `[N]`.
        scoring: `softmax`, whose bias is 0, or `sigmoid`.

    Raises:
        InputError: there is not one target for each image, or no label of its number, or no image.
    """
    import torch

    count, labels = cosines.shape
    if targets.shape != (count,) or targets.is_floating_point() or not count:
        raise InputError(f"targets: expected a label's number for each of {count} images, found {list(targets.shape)}")
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= labels:
        raise InputError(f"targets run from {low} to {high}; there are labels 0 to {labels - 1}")
    likelihood = _softmax if scoring == "softmax" else _sigmoid
    numbers = torch.ones(1 if scoring == "softmax" else 2, dtype=torch.float64)
    loss, slope, curvature = likelihood(numbers, cosines, targets)
    step = _newton(numbers, slope, curvature)
    while float(step.abs().max()) > TOLERANCE:
        fitted = likelihood(numbers - step, cosines, targets)
        if fitted[0] < loss:
            numbers, (loss, slope, curvature) = numbers - step, fitted
            step = _newton(numbers, slope, curvature)
        else:
            step = step / 2
    return Calibration(float(numbers[0]), float(numbers[1]) if len(numbers) == 2 else 0.0, float(loss))


def _newton(numbers: Tensor, slope: Tensor, curvature: Tensor) -> Tensor:
    """Return the step to the lowest point of a parabola within the bounds of the scale."""
    import torch

    inverse = cast("Tensor", torch.linalg.pinv(curvature))  # pyright: ignore[reportUnknownMemberType]
    step = inverse @ slope  # images that are all alike leave the curvature singular
    step[0] = numbers[0] - (numbers[0] - step[0]).clamp(MIN_SCALE, MAX_SCALE)
    step[1:] = (slope[1:] - curvature[1:, 0] * step[0]) / curvature[1:, 1:].diagonal()  # the best bias at that scale
    return step


def _softmax(numbers: Tensor, cosines: Tensor, targets: Tensor) -> Likelihood:
    """Return the loss of `softmax(numbers[0] * cosines)`, its slope `[1]` and its curvature `[1, 1]`."""
    import torch

    chances = (numbers[0] * cosines).softmax(dim=1)  # [N, C]
    right = targets[:, None]
    expected = (chances * cosines).sum(dim=1, keepdim=True)
    slope = (expected - cosines.gather(1, right)).mean()
    curvature = (chances * (cosines - expected).square()).sum(dim=1).mean()
    loss = torch.nn.functional.cross_entropy(numbers[0] * cosines, targets)
    return loss, slope.view(1), curvature.view(1, 1)


def _sigmoid(numbers: Tensor, cosines: Tensor, targets: Tensor) -> Likelihood:
    """Return the loss of `sigmoid(numbers[0] * cosines + numbers[1])`, its slope `[2]` and its curvature `[2, 2]`."""
    import torch
    import torch.nn.functional as F

    logits = numbers[0] * cosines + numbers[1]
    right = torch.zeros_like(logits)
    right[torch.arange(len(targets)), targets] = 1
    loss = F.binary_cross_entropy_with_logits(logits, right)
    chances = logits.sigmoid()
    off = chances - right
    slope = torch.stack([(off * cosines).mean(), off.mean()])
    weights = chances * (1 - chances)
    mixed = (weights * cosines).mean()
    curvature = torch.stack([(weights * cosines.square()).mean(), mixed, mixed, weights.mean()]).view(2, 2)
    return loss, slope, curvature
