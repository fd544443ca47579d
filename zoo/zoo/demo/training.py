"""Contrastive training of the demo, in groups of ten digits.

Each group shows every digit once, so that no caption has a second right image. A batch of pairs drawn at random holds
the same digit many times over, and the contrastive loss would push each image away from captions that describe it.
One forward pass serves all groups; only the loss sees them apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import zoo
from zoo.demo.data import Split, captions, distort, draw_groups, tensors
from zoo.demo.settings import Recipe

if TYPE_CHECKING:
    from zoo_core.interfaces import Loss

__all__ = ["Progress", "train"]

Progress = Callable[[int, int, dict[str, float]], None]
"""Called after each step with its number (from 1), the number of steps, and what was measured."""


@contextmanager
def one_thread() -> Generator[None, None, None]:
    """Keep torch to one thread.

    The matrices are too small to share. On a busy machine several threads wait for one another most of the time, and
    with one the sums, hence the result, do not depend on how many cores there are.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
def train(model: Any, split: Split, recipe: Recipe, seed: int, progress: Progress | None = None) -> list[float]:
    """Train a model in place and leave it in evaluation mode.

    Returns:
        the loss of each step.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters: list[nn.Parameter] = list(model.parameters())
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    others = [parameter for parameter in parameters if parameter.ndim <= 1]  # biases, gains and the logit scale
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
        betas=recipe.betas,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate(step, recipe))
    loss_of = zoo.loss("contrastive")
    model.logit_scale.data.fill_(math.log(recipe.initial_logit_scale))
    losses: list[float] = []
    model.train()
    for step, (images, tokens) in enumerate(_batches(model, split, recipe, generator), start=1):
        loss = _group_loss(model, images, tokens, recipe, loss_of)
        optimizer.zero_grad()
        loss.backward()  # pyright: ignore[reportUnknownMemberType]
        nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_clip)
        optimizer.step()  # pyright: ignore[reportUnknownMemberType]
        schedule.step()
        model.logit_scale.data.clamp_(0, math.log(recipe.largest_logit_scale))
        losses.append(loss.item())
        if progress is not None:
            progress(step, recipe.steps, {"loss": losses[-1], "logit_scale": model.logit_scale.exp().item()})
    model.eval()
    return losses


def _batches(model: Any, split: Split, recipe: Recipe, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images `[groups * 10, 3, H, W]` and token ids `[caption_sets * 10, L]`, digits 0 to 9 over and over."""
    images = tensors(split.pictures, model.preprocess)
    labels = torch.from_numpy(split.labels)  # pyright: ignore[reportUnknownMemberType]
    tokens = torch.stack([model.tokenizer(texts) for texts in captions()])  # [10, captions, L]
    digits = torch.arange(10).repeat(recipe.caption_sets)
    for step in range(recipe.steps):
        strength = min(1.0, step / (recipe.curriculum * recipe.steps))
        chosen = draw_groups(labels, recipe.groups, generator).flatten()
        wording = torch.randint(tokens.shape[1], (recipe.caption_sets, 1), generator=generator)
        yield (
            distort(images[chosen], recipe, generator, strength),
            tokens[digits, wording.expand(-1, 10).flatten()],
        )


def _group_loss(model: Any, images: Tensor, tokens: Tensor, recipe: Recipe, loss_of: Loss) -> Tensor:
    """Return the mean loss of the groups; group g is held against caption set g modulo their number."""
    image_features = model.encode_image(images, normalize=True).unflatten(0, (recipe.groups, 10))  # [G, 10, D]
    text_features = model.encode_text(tokens, normalize=True).unflatten(0, (recipe.caption_sets, 10))  # [S, 10, D]
    scale = model.logit_scale.exp()
    losses = [
        loss_of(group, text_features[index % len(text_features)], scale) for index, group in enumerate(image_features)
    ]
    return torch.stack(losses).mean()


def _learning_rate(step: int, recipe: Recipe) -> float:
    """Return the factor of the learning rate: a linear warm-up, then half a cosine to 0."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    return (1 + math.cos(math.pi * (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps))) / 2
