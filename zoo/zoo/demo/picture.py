"""The demo's figure of predictions and confusion matrix.

Each row of digits answers one held-out template alone, so that the figure shows every prompt at work. The matrix and
the headline are those of all prompts together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from zoo.demo.data import Split
from zoo.demo.evaluation import Evaluation
from zoo.demo.settings import FIGURES, HELD_OUT_TEMPLATES, WORDS, optional

__all__ = ["draw"]

COLUMNS = 10
INK, QUIET, WRONG = "#1b1f24", "#6e7781", "#cf222e"


def draw(evaluation: Evaluation, split: Split, path: Path, seed: int = 0) -> Path:
    """Draw some digits of `split` with their predictions, chosen by `seed`, and write a PNG to `path`.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    backend = optional("matplotlib.backends.backend_agg")
    figure = optional("matplotlib.figure").Figure(figsize=(14.4, 7.0), dpi=120, facecolor="white")
    backend.FigureCanvasAgg(figure)
    digits, confusion = figure.subfigures(1, 2, width_ratios=(1.32, 1))
    _draw_digits(digits, evaluation, split, seed)
    _draw_confusion(confusion, evaluation)
    figure.savefig(path)
    return path


def _draw_digits(figure: Any, evaluation: Evaluation, split: Split, seed: int) -> None:
    figure.text(0.045, 0.945, "Held-out digits, held-out prompts", size=16, weight="bold", color=INK, va="center")
    rows = len(HELD_OUT_TEMPLATES)
    shown = np.random.default_rng(seed).choice(len(split), size=(rows, COLUMNS), replace=False)
    axes = figure.subplots(rows, COLUMNS, gridspec_kw={"left": 0.045, "right": 0.97, "top": 0.86, "bottom": 0.06})
    figure.subplots_adjust(wspace=0.12, hspace=0.72)
    for template, row, cells in zip(HELD_OUT_TEMPLATES, shown, axes, strict=True):
        predicted = evaluation.by_template[template]["word"]
        accuracy = evaluation.template_accuracy[template]["word"]
        prompt = f"“{template.format('…')}”"
        cells[0].text(0, 1.16, prompt, transform=cells[0].transAxes, size=11, style="italic", color=INK)
        cells[-1].text(
            1,
            1.16,
            f"{accuracy:.1%} of {len(split)}",
            transform=cells[-1].transAxes,
            size=10,
            color=QUIET,
            ha="right",
        )
        for index, cell in zip(row, cells, strict=True):
            _draw_digit(cell, split.pictures[index], int(predicted[index]), int(split.labels[index]))


def _draw_digit(cell: Any, picture: Any, predicted: int, label: int) -> None:
    right = predicted == label
    cell.imshow(np.asarray(picture), cmap="gray", vmin=0, vmax=255)
    cell.set_xticks([])
    cell.set_yticks([])
    cell.set_xlabel(WORDS[predicted], size=10.5, color=INK if right else WRONG, weight="normal" if right else "bold")
    for spine in cell.spines.values():
        spine.set_color("#d0d7de" if right else WRONG)
        spine.set_linewidth(0.8 if right else 2.0)


def _draw_confusion(figure: Any, evaluation: Evaluation) -> None:
    counts = evaluation.confusion
    figure.text(
        0.1,
        0.945,
        f"Zero-shot accuracy {evaluation.accuracy:.1%}",
        size=16,
        weight="bold",
        color=INK,
        va="center",
    )
    axis = figure.add_axes((0.1, 0.075, 0.86, 0.78))
    right = np.eye(10, dtype=bool)
    for cells, colors in ((right, "Blues"), (~right, "Reds")):
        shade = np.ma.masked_where(~cells | (counts == 0), np.sqrt(counts / counts.sum(axis=1, keepdims=True)))
        axis.imshow(shade, cmap=colors, vmin=0, vmax=1.1)
    axis.set_xticks(range(10), FIGURES, color=INK)
    axis.set_yticks(range(10), FIGURES, color=INK)
    axis.set_xlabel("digit named", color=QUIET, size=11)
    axis.set_ylabel("digit shown", color=QUIET, size=11)
    axis.tick_params(length=0, labelsize=11)
    for spine in axis.spines.values():
        spine.set_visible(False)
    for shown, named in zip(*counts.nonzero(), strict=True):
        count = int(counts[shown, named])
        color = "white" if count > 0.3 * counts[shown].sum() else INK
        axis.text(named, shown, str(count), ha="center", va="center", size=11, color=color, weight="bold")
