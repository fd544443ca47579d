"""The whole demo in one call.

The model folder also receives `recipe.json`, `demo.png` and `samples/`: one held-out digit of each class as PNG.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import zoo
from zoo.demo.data import Split, load_digits
from zoo.demo.evaluation import evaluate
from zoo.demo.picture import draw
from zoo.demo.settings import ARCHITECTURE, RECIPE, Recipe, optional, recipe
from zoo.demo.training import Progress, train
from zoo_core.errors import InputError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["DemoResult", "run_demo"]


@dataclass(frozen=True)
class DemoResult:
    """What the demo found and where it put it.

    `confusion` is `[10, 10]` counts: the digit shown down, the digit named across. `template_accuracy` maps each
    held-out template to the accuracy of its prompts alone, for "word" ("seven") and "figure" ("7").
    """

    accuracy: float
    template_accuracy: Mapping[str, Mapping[str, float]]
    confusion: np.ndarray[Any, Any]
    test_digits: int
    steps: int
    losses: tuple[float, ...]
    seconds: float
    """Wall time of all of it: data, training, evaluation, files."""
    seed: int
    folder: Path
    picture: Path
    samples: tuple[Path, ...]
    """A held-out digit of each class, 0 to 9."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON; of the losses only the first and the last."""
        return {
            "accuracy": self.accuracy,
            "template_accuracy": {template: dict(shares) for template, shares in self.template_accuracy.items()},
            "confusion": self.confusion.tolist(),
            "test_digits": self.test_digits,
            "steps": self.steps,
            "loss": {"first": self.losses[0], "last": self.losses[-1]},
            "seconds": self.seconds,
            "seed": self.seed,
            "folder": str(self.folder),
            "picture": str(self.picture),
            "samples": [str(path) for path in self.samples],
        }


def run_demo(
    folder: str | Path, *, seed: int = 0, steps: int | None = None, progress: Progress | None = None
) -> DemoResult:
    """Train `digits-tiny` on handwritten digits and judge it on digits and prompts that it never saw.

    Args:
        folder: where the model, its recipe, the picture and the sample digits go.
        seed: of the split, the weights and the training; on one machine, equal seeds give equal results.
        steps: training steps; the recipe's own where None.
        progress: called after each step with its number (from 1), the number of steps and
            `{"loss": ..., "logit_scale": ...}`.

    Raises:
        MissingDependencyError: scikit-learn or matplotlib is not installed.
        InputError: `steps` is below 1, or `seed` is not in 0..2**32 - 1.
        SaveError: the folder holds something else than a saved model, or cannot be written.
    """
    chosen = _checked(seed, steps)
    optional("matplotlib.figure")  # to fail now rather than after the training
    start = time.perf_counter()
    digits = load_digits(seed, chosen.test_share)
    with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
        torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
        model: Any = zoo.build(ARCHITECTURE)
    losses = train(model, digits.train, chosen, seed, progress)
    evaluation = evaluate(model, digits.test)
    target = Path(zoo.save(model, folder))
    record = {**recipe(), "steps": chosen.steps, "seed": seed, "torch": torch.__version__}
    (target / "recipe.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    picture = draw(evaluation, digits.test, target / "demo.png", seed)
    samples = _write_samples(target / "samples", digits.test)
    return DemoResult(
        accuracy=evaluation.accuracy,
        template_accuracy=evaluation.template_accuracy,
        confusion=evaluation.confusion,
        test_digits=len(digits.test),
        steps=chosen.steps,
        losses=tuple(losses),
        seconds=time.perf_counter() - start,
        seed=seed,
        folder=target,
        picture=picture,
        samples=samples,
    )


def _checked(seed: int, steps: int | None) -> Recipe:
    if not 0 <= seed < 2**32:
        raise InputError(f"seed must be from 0 to {2**32 - 1}, found {seed}")
    if steps is None:
        return RECIPE
    if steps < 1:
        raise InputError(f"steps must be at least 1, found {steps}")
    return replace(RECIPE, steps=steps)


def _write_samples(folder: Path, split: Split) -> tuple[Path, ...]:
    """Write the first held-out digit of each class, right or wrong, as `0.png` to `9.png`."""
    folder.mkdir(exist_ok=True)
    paths: list[Path] = []
    for digit in range(10):
        path = folder / f"{digit}.png"
        split.pictures[int((split.labels == digit).argmax())].save(path)
        paths.append(path)
    return tuple(paths)
