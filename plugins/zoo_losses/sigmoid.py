"""Sigmoid loss of SigLIP over all pairs of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from zoo_core.errors import InputError, describe, one_of
from zoo_losses.gathering import Group
from zoo_losses.pairs import (
    PairLoss,
    Pairs,
    Weights,
    check_one,
    is_set,
    mean_weights,
    pair_weights,
    paired_entries,
    tiles,
)

__all__ = ["SigLipLoss"]

SENDING = ("bidir", "shift", "reduce", "gather")

SOFTPLUS_IS_LINEAR = 40
"""Beyond this, softplus(x) is x to the last bit of float64."""


class SigLipLoss(PairLoss):
    """Binary cross-entropy of every pair, summed over texts and averaged over images (Zhai et al. 2023).

    With ids, all pairs of one id count as belonging together; with distinct ids it is the plain loss.

    Args:
        cache_labels, rank, world_size, chunk_size, group: as of `PairLoss`.
        dist_impl: how open_clip sends texts between processes, `bidir`, `shift`, `reduce` or `gather`: taken, and
            without effect, since gradients, once averaged over processes, are the same. The value here is always that
            of the whole batch, the mean of those that open_clip gives each process.

    Raises:
        InputError: an argument of a wrong type or range.
    """

    def __init__(
        self,
        cache_labels: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        dist_impl: str | None = None,
        *,
        chunk_size: int | None = None,
        group: Group = None,
    ) -> None:
        if dist_impl is not None and not (isinstance(dist_impl, str) and dist_impl in SENDING):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"dist_impl {describe(dist_impl)} is none; {one_of(SENDING)}")
        super().__init__(
            chunk_size=chunk_size, group=group, cache_labels=cache_labels, rank=rank, world_size=world_size
        )
        self.dist_impl = dist_impl

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor | None = None,
        output_dict: bool = False,
        ids: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Any:
        """Return the loss of the batch of all processes.

        Args:
            image_features: unit-norm features `[B, D]`.
            text_features: unit-norm features `[B, D]`.
            logit_scale: factor of the cosines, exponentiated, `[]` or `[1]`.
            logit_bias: offset of the logits, `[]` or `[1]`; 0 where None.
            output_dict: return `{"contrastive_loss": loss}` instead of the loss.
            ids: int64 `[B]`; pairs of one id belong together.
            weights: `[B]`, factors of what each pair adds to the loss; those of a pair of two are the mean of theirs.

        Returns:
            a scalar, in float64 for features in float64 and in float32 for all others.

        Raises:
            InputError: a tensor of a wrong shape, dtype or device, or an empty batch.
        """
        self.check_processes()
        if logit_bias is not None:
            check_one("logit_bias", logit_bias, image_features)
        pairs = Pairs.of(image_features, text_features, logit_scale, ids, weights=weights, group=self.group)
        bias = pairs.images.new_zeros(()) if logit_bias is None else logit_bias.to(pairs.images.dtype).reshape(())
        with torch.autocast(pairs.images.device.type, enabled=False):
            total = _Sum.apply(
                pairs.images,
                pairs.texts,
                bias,
                _Signs.of(pairs),
                self.chunk_size,
                torch.is_grad_enabled(),
                pair_weights(pairs),
            )
            loss = pairs.shard.sum(total) / pairs.shard.total
        return {"contrastive_loss": loss} if is_set("output_dict", output_dict) else loss


@dataclass(frozen=True)
class _Signs:
    """Which pairs belong together.

    Attributes:
        first: number of the first row among those of all processes.
        rows: ids `[B]`, or None where an image belongs to its own text alone.
        columns: ids `[N]`, or None.
    """

    first: int
    rows: Tensor | None
    columns: Tensor | None

    @classmethod
    def of(cls, pairs: Pairs) -> _Signs:
        return cls(pairs.shard.start, pairs.row_ids, pairs.column_ids)

    def flipped(self, tile: Tensor, chunk: slice) -> Tensor:
        """Return a tile with the sign of all pairs that belong together changed; the tile is used up."""
        if self.rows is None or self.columns is None:
            paired_entries(tile, chunk, self.first)[1].neg_()
            return tile
        return torch.where(self.rows[:, None] == self.columns[chunk], -tile, tile)


class _Sum(Function):
    """Sum of the losses of all pairs, a tile of logits at a time.

    Unlike a softmax, a sigmoid needs no other logit, so that a tile gives its gradients along with its losses, and
    no logit is computed twice.
    """

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        texts: Tensor,
        bias: Tensor,
        signs: _Signs,
        chunk_size: int | None,
        grad_enabled: bool,
        weights: Weights,
    ) -> Tensor:
        wants_images, wants_texts, wants_bias = (grad_enabled and needed for needed in ctx.needs_input_grad[:3])
        losses = images.new_zeros(len(images))
        to_images = torch.zeros_like(images) if wants_images else None
        to_texts = torch.empty_like(texts) if wants_texts else None
        to_bias = torch.zeros_like(bias) if wants_bias else None
        for chunk, logits in tiles(images, texts, chunk_size):
            wrongness = signs.flipped(logits.add_(bias), chunk)
            of_tile = F.softplus(wrongness, threshold=SOFTPLUS_IS_LINEAR)
            losses += (of_tile if weights is None else of_tile * mean_weights(weights, chunk)).sum(dim=1)
            if not (wants_images or wants_texts or wants_bias):
                continue
            # Not sigmoid(logits) - 1 for positives, which loses what is left of a well-placed pair.
            gradient = signs.flipped(wrongness.sigmoid_(), chunk)
            if weights is not None:
                gradient.mul_(mean_weights(weights, chunk))
            if to_bias is not None:
                to_bias += gradient.sum()
            if to_images is not None:
                to_images.addmm_(gradient, texts[chunk])
            if to_texts is not None:
                torch.mm(gradient.T, images, out=to_texts[chunk])
        ctx.save_for_backward(to_images, to_texts, to_bias)
        return losses.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        to_images, to_texts, to_bias = (
            None if gradient is None else weight * gradient for gradient in ctx.saved_tensors
        )
        return to_images, to_texts, to_bias, *[None] * 4
