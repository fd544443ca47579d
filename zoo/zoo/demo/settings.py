"""Hyperparameters and captions of the demo, as plain data.

The prompts of `HELD_OUT_TEMPLATES` never occur in training, so that a right answer to one of them shows that the text
tower reads the digit in a sentence rather than recalls the sentence.
"""

from __future__ import annotations

import importlib
from dataclasses import asdict, dataclass
from typing import Any

from zoo_core.errors import MissingDependencyError

__all__ = [
    "ARCHITECTURE",
    "FIGURES",
    "HELD_OUT_TEMPLATES",
    "RECIPE",
    "TRAIN_TEMPLATES",
    "WORDS",
    "Recipe",
    "optional",
    "recipe",
]

PACKAGES = {"sklearn": "scikit-learn", "matplotlib": "matplotlib"}

ARCHITECTURE = "digits-tiny"

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FIGURES = tuple(str(digit) for digit in range(10))

# Of many kinds, so that the text tower learns to look past words that it has not met.
TRAIN_TEMPLATES = (
    "{}",
    "a {}",
    "the digit {}",
    "a photo of the digit {}",
    "a photo of a {}.",
    "a picture of the number {}",
    "an image of a {}",
    "a handwritten {}",
    "a handwritten digit: {}",
    "a scan of the number {}",
    "the number {} on paper",
    "this is a {}.",
    "it says {}",
    "they drew {}",
    "someone has written {}",
    "here is the digit {}",
    "my friend wrote the number {}",
    "what you see is {}",
    "look, a {}!",
    "a blurry {}",
    "the answer is {}",
    "a child writes a {}",
)

HELD_OUT_TEMPLATES = (
    "a picture of the digit {}",
    "a handwritten number {}",
    "a drawing of a {}",
    "a sketch of the digit {}",
    "somebody wrote {}",
)


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of a training run.

    Angles are in degrees; `shift`, `scale`, `shear` and `noise` are fractions of what they change.
    """

    steps: int = 400
    groups: int = 16
    """Sets of ten distinct digits in a step. The loss is computed within each, so that no caption is held against
    another picture of the digit that it names."""
    caption_sets: int = 4
    """Sets of ten captions in a step; several groups share one, which saves most of the text tower's time."""
    learning_rate: float = 2e-3
    warmup_steps: int = 20
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    gradient_clip: float = 1.0
    initial_logit_scale: float = 7.0
    largest_logit_scale: float = 100.0
    curriculum: float = 0.4
    """Share of the steps over which augmentation grows to its full strength. Without it the towers spend that long
    in finding anything to agree on."""
    rotation: float = 12.0
    shift: float = 0.12
    scale: float = 0.25
    shear: float = 0.1
    noise: float = 0.05
    inversion: float = 0.5
    """How often dark ink on light paper is shown instead of the data's light on dark."""
    test_share: float = 0.2
    """Share of the digits, of every class alike, that are held out."""


RECIPE = Recipe()


def recipe() -> dict[str, Any]:
    """Return the hyperparameters and templates as plain data, as `recipe.json` beside a checkpoint holds them."""
    return {
        "architecture": ARCHITECTURE,
        **asdict(RECIPE),
        "train_templates": list(TRAIN_TEMPLATES),
        "held_out_templates": list(HELD_OUT_TEMPLATES),
    }


def optional(module: str) -> Any:
    """Import and return a module of the demo's optional packages.

    Raises:
        MissingDependencyError: it cannot be imported; the pip command is named.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"the demo needs {PACKAGES[module.partition('.')[0]]}: {error}; run: pip install 'clip-zoo[demo]'"
        ) from error
