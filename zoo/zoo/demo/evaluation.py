"""Zero-shot evaluation of the demo on held-out digits and prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.demo.data import Split
from zoo.demo.settings import FIGURES, HELD_OUT_TEMPLATES, WORDS

__all__ = ["Evaluation", "evaluate"]

Predictions = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Evaluation:
    """What was predicted for each held-out digit.

    `predictions` `[N]` are those of the prompt ensemble: each class is the mean of its held-out prompts, spelled out.
    `by_template` holds those of every held-out template alone, for both spellings ("word" is "seven", "figure" "7").
    """

    labels: Predictions
    predictions: Predictions
    by_template: dict[str, dict[str, Predictions]]

    @property
    def accuracy(self) -> float:
        """Share of digits that the prompt ensemble names correctly."""
        return self._share(self.predictions)

    @property
    def template_accuracy(self) -> dict[str, dict[str, float]]:
        """Share of digits that each held-out template names correctly, alone, for both spellings."""
        return {
            template: {spelling: self._share(predicted) for spelling, predicted in spellings.items()}
            for template, spellings in self.by_template.items()
        }

    @property
    def confusion(self) -> Predictions:
        """Counts `[10, 10]` of the prompt ensemble: the digit shown down, the digit named across."""
        counts = np.zeros((10, 10), dtype=np.int64)
        np.add.at(counts, (self.labels, self.predictions), 1)
        return counts

    def _share(self, predicted: Predictions) -> float:
        return float((predicted == self.labels).mean())


@torch.inference_mode()
def evaluate(model: Any, split: Split) -> Evaluation:
    """Name every digit of `split` by its nearest prompt."""
    images = model.encode_image(split.pictures, normalize=True)
    classes = {
        template: {"word": _classes(model, template, WORDS), "figure": _classes(model, template, FIGURES)}
        for template in HELD_OUT_TEMPLATES
    }
    ensemble = F.normalize(torch.stack([spellings["word"] for spellings in classes.values()]).mean(0), dim=-1)
    return Evaluation(
        labels=split.labels,
        predictions=_nearest(images, ensemble),
        by_template={
            template: {spelling: _nearest(images, texts) for spelling, texts in spellings.items()}
            for template, spellings in classes.items()
        },
    )


def _classes(model: Any, template: str, names: Sequence[str]) -> Tensor:
    """Return one text feature a digit, `[10, D]`."""
    return model.encode_text([template.format(name) for name in names], normalize=True)


def _nearest(images: Tensor, texts: Tensor) -> Predictions:
    """Return the index of the text nearest to each image, `[N]`."""
    return (images @ texts.T).argmax(dim=1).numpy()
