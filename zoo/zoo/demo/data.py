"""The demo's images of digits, split and distorted for training.

scikit-learn's digits are 8x8 greys from 0 to 16, light ink on dark paper. They are enlarged to ordinary images first
and reach the model through its own preprocessing, as a user's file does, so that what is measured is what is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Generator, Tensor

from zoo.demo.settings import FIGURES, TRAIN_TEMPLATES, WORDS, Recipe, optional

__all__ = ["PICTURE_SIDE", "Digits", "Split", "captions", "distort", "draw_groups", "load_digits", "tensors"]

PICTURE_SIDE = 64
"""Height and width in pixels of the enlarged digits."""

BRIGHTEST = 16
"""The largest grey of scikit-learn's digits."""


@dataclass(frozen=True)
class Split:
    """Images with the digit that each shows, and their indices in scikit-learn's data set."""

    pictures: list[Image.Image]
    labels: np.ndarray[Any, np.dtype[np.int64]]
    indices: np.ndarray[Any, np.dtype[np.int64]]

    def __len__(self) -> int:
        return len(self.pictures)


@dataclass(frozen=True)
class Digits:
    """The digits to train on and those held out."""

    train: Split
    test: Split


def load_digits(seed: int, test_share: float) -> Digits:
    """Return scikit-learn's 1,797 digits, split at random with every class in proportion.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    data = optional("sklearn.datasets").load_digits()
    split = optional("sklearn.model_selection").train_test_split
    labels = data.target.astype(np.int64)
    train, test = split(np.arange(len(labels)), test_size=test_share, stratify=labels, random_state=seed)
    images: np.ndarray[Any, np.dtype[np.float64]] = data.images  # [1797, 8, 8], greys from 0 to 16
    pixels = np.round(images * (255 / BRIGHTEST)).astype(np.uint8)
    size, bicubic = (PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BICUBIC
    pictures = [Image.fromarray(greys).resize(size, bicubic) for greys in pixels]
    return Digits(*(Split([pictures[i] for i in part], labels[part], part) for part in (train, test)))


def tensors(pictures: Sequence[Image.Image], preprocess: Callable[[Image.Image], Tensor]) -> Tensor:
    """Preprocess images into `[N, 3, H, W]` float32."""
    return torch.stack([preprocess(picture) for picture in pictures])


def captions(templates: Sequence[str] = TRAIN_TEMPLATES) -> list[list[str]]:
    """Return the captions of each digit, `[10][2 * templates]`: every template with "seven", then with "7"."""
    return [
        [template.format(name) for name in names for template in templates]
        for names in zip(WORDS, FIGURES, strict=True)
    ]


def draw_groups(labels: Tensor, groups: int, generator: Generator) -> Tensor:
    """Draw indices `[groups, 10]` into `labels`; column d shows the digit d."""
    columns: list[Tensor] = []
    for digit in range(10):
        of_digit = (labels == digit).nonzero().squeeze(1)
        columns.append(of_digit[torch.randint(len(of_digit), (groups,), generator=generator)])
    return torch.stack(columns, dim=1)


def distort(images: Tensor, recipe: Recipe, generator: Generator, strength: float = 1.0) -> Tensor:
    """Rotate, shear, scale, shift, invert and roughen each image in its own way.

    Args:
        images: `[B, C, H, W]`, black -1 and white 1; what is shifted in from outside is black.
        recipe: how far each distortion goes.
        generator: where chance comes from.
        strength: factor of every distortion, 0 to 1; 0 leaves the images as they are.

    Returns:
        images of the same shape in -1..1.
    """
    count = len(images)

    def spread(width: float) -> Tensor:
        return strength * width * (2 * torch.rand(count, generator=generator) - 1)

    angle, shear, zoom = spread(math.radians(recipe.rotation)), spread(recipe.shear), 1 + spread(recipe.scale)
    right, down = spread(2 * recipe.shift), spread(2 * recipe.shift)  # the grid spans -1..1: twice the fraction
    cosine, sine = angle.cos() * zoom, angle.sin() * zoom
    rows = [torch.stack([cosine, shear - sine, right], 1), torch.stack([sine, cosine, down], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    moved = F.grid_sample(images + 1, grid, align_corners=False) - 1
    inverted = torch.rand(count, generator=generator) < strength * recipe.inversion
    moved = torch.where(inverted.view(-1, 1, 1, 1), -moved, moved)
    grain = torch.randn(count, 1, *images.shape[2:], generator=generator)
    return (moved + strength * recipe.noise * grain).clamp(-1, 1)
