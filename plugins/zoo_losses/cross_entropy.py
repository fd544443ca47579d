"""Symmetric cross-entropy of images and texts, tile by tile.

With targets `w` whose rows and whose columns each sum to 1, the cross-entropies of all rows and of all columns are

    sum_i log sum_j exp(s_ij)  +  sum_j log sum_i exp(s_ij)  -  2 sum_ij w_ij s_ij

so that one pass over the logits gives both directions. With weights of the pairs, row i and column i count w_i times,
and the target of i and j (w_i + w_j) / 2 times. The backward pass computes each tile again, and its gradient in place;
neither pass holds more than a few tiles. On a GPU, small batches take as long as their kernels take to start, so a
batch of one tile is spared what only puts tiles together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from zoo_losses.gathering import Shard
from zoo_losses.pairs import Pairs, Weights, mean_weights, pair_weights, paired_entries, tiles

__all__ = ["Targets", "Teacher", "positives", "symmetric_cross_entropies"]


class Targets(ABC):
    """What the logits should say, without gradient: the mean of the targets of both directions."""

    @abstractmethod
    def agreement(self, chunk: slice, logits: Tensor) -> Tensor:
        """Return the sums over some columns of target times logit, `[B]`, of a tile of logits `[B, chunk]`."""

    @abstractmethod
    def add_to(self, gradient: Tensor, chunk: slice, weight: Tensor) -> None:
        """Add the targets of some columns, times a weight `[]`, to a tile."""


def positives(pairs: Pairs) -> Targets:
    """Return the targets of a batch: each image's own text, or all texts of its id."""
    if pairs.row_ids is None or pairs.column_ids is None:
        return OwnPairs(pairs.shard.start, pairs.row_weights)
    return SharedIds.of(pairs.row_ids, pairs.column_ids, pairs.images.dtype, pair_weights(pairs))


@dataclass(frozen=True)
class OwnPairs(Targets):
    """The target of a row is its own text alone, for which no matrix is made.

    Attributes:
        first: number of the first row among those of all processes.
        weights: factors of the rows, `[B]`; None where all are 1.
    """

    first: int
    weights: Tensor | None = None

    def agreement(self, chunk: slice, logits: Tensor) -> Tensor:
        """Return the logits of the own pairs, and 0 for rows whose own pair is in another tile."""
        rows, entries = paired_entries(logits, chunk, self.first)
        if self.weights is not None:
            entries = entries * self.weights[rows]
        return F.pad(entries, (rows.start, len(logits) - rows.stop))

    def add_to(self, gradient: Tensor, chunk: slice, weight: Tensor) -> None:
        """Add the weight to the own pairs."""
        rows, entries = paired_entries(gradient, chunk, self.first)
        entries.add_(weight if self.weights is None else weight * self.weights[rows])


class DenseTargets(Targets):
    """Targets that any pair can have a share of."""

    @abstractmethod
    def tile(self, chunk: slice, like: Tensor) -> Tensor:
        """Return the targets of some columns, `[B, chunk]`."""

    def agreement(self, chunk: slice, logits: Tensor) -> Tensor:
        """Return the sums of target times logit."""
        return (self.tile(chunk, logits) * logits).sum(dim=1)

    def add_to(self, gradient: Tensor, chunk: slice, weight: Tensor) -> None:
        """Add the targets times the weight."""
        gradient.addcmul_(self.tile(chunk, gradient), weight)


@dataclass(frozen=True)
class SharedIds(DenseTargets):
    """Targets that are uniform over the pairs of one id.

    Attributes:
        rows: ids `[B]`.
        columns: ids `[N]`.
        share: one over how many columns have the id of a row, `[B, 1]`.
        weights: factors of rows `[B]` and of columns `[N]`; None where all are 1.
    """

    rows: Tensor
    columns: Tensor
    share: Tensor
    weights: Weights = None

    @classmethod
    def of(cls, rows: Tensor, columns: Tensor, dtype: torch.dtype, weights: Weights = None) -> SharedIds:
        """Count the positives of each row."""
        ordered, rows = columns.sort().values, rows.contiguous()
        count = torch.searchsorted(ordered, rows, right=True) - torch.searchsorted(ordered, rows)
        return cls(rows, columns, count.to(dtype).reciprocal()[:, None], weights)

    def tile(self, chunk: slice, like: Tensor) -> Tensor:
        """Return the targets, which are the same in both directions."""
        targets = torch.where(self.rows[:, None] == self.columns[chunk], self.share, 0)
        return targets if self.weights is None else targets.mul_(mean_weights(self.weights, chunk))


@dataclass(frozen=True)
class Teacher(DenseTargets):
    """Targets that are another model's probabilities.

    Attributes:
        images: its features times its logit scale, `[B, D]`.
        texts: its features, `[N, D]`.
        rows: its log-sum-exp over the texts, `[B]`.
        columns: its log-sum-exp over the images of all processes, `[N]`.
    """

    images: Tensor
    texts: Tensor
    rows: Tensor
    columns: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, pairs: Pairs, chunk_size: int | None) -> Teacher:
        """Normalise a teacher's logits."""
        with torch.autocast(pairs.images.device.type, enabled=False):
            rows, columns, _ = _terms(pairs.images, pairs.texts, (), chunk_size)
        return cls(pairs.images.detach(), pairs.texts.detach(), rows, pairs.shard.logsumexp(columns))

    def tile(self, chunk: slice, like: Tensor) -> Tensor:
        """Return the mean of the probabilities of the texts of each image and of the images of each text."""
        logits = self.images @ self.texts[chunk].T
        to_texts = (logits - self.rows[:, None]).exp_()
        return (logits.sub_(self.columns[chunk]).exp_() + to_texts).mul_(0.5).to(like.dtype)


def symmetric_cross_entropies(
    pairs: Pairs, targets: Sequence[Targets], chunk_size: int | None, logit_bias: Tensor | None = None
) -> Tensor:
    """Return for each of several targets the mean of both directions over the batch of all processes, `[T]`.

    A bias cancels, and takes part all the same: DDP wants a gradient of each parameter.
    """
    with torch.autocast(pairs.images.device.type, enabled=False):
        return _CrossEntropies.apply(
            pairs.images, pairs.texts, logit_bias, pairs.shard, tuple(targets), chunk_size, pair_weights(pairs)
        )


def _terms(
    images: Tensor, texts: Tensor, targets: Sequence[Targets], chunk_size: int | None
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return log-sum-exp of rows `[B]` and of columns `[N]`, and the sums of target times logit.

    Each target has sums of its own, `[B]`.
    """
    columns = texts.new_empty(len(texts))
    by_row: list[Tensor] = []
    for chunk, logits in tiles(images, texts, chunk_size):
        torch.logsumexp(logits, dim=0, out=columns[chunk])
        of_tile = [logits.logsumexp(dim=1), *(target.agreement(chunk, logits) for target in targets)]
        if by_row:
            of_tile = [torch.logaddexp(by_row[0], of_tile[0]), *map(torch.add, by_row[1:], of_tile[1:])]
        by_row = of_tile
    rows, *agreements = by_row
    return rows, columns, agreements


class _CrossEntropies(Function):
    """The cross-entropies of both directions, whose backward pass computes the logits again."""

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        texts: Tensor,
        logit_bias: Tensor | None,
        shard: Shard,
        targets: Sequence[Targets],
        chunk_size: int | None,
        weights: Weights,
    ) -> Tensor:
        rows, columns, agreements = _terms(images, texts, targets, chunk_size)
        columns = shard.logsumexp(columns)
        ctx.save_for_backward(images, texts, logit_bias, rows, columns)
        ctx.shard, ctx.targets, ctx.chunk_size, ctx.weights = shard, targets, chunk_size, weights
        # each process adds the rows and the columns of its own pairs, so that near-equal numbers are subtracted first
        both = rows + columns[shard.start : shard.stop]
        if weights is not None:
            both = both * weights[0]
        sums = [torch.sub(both, agreement, alpha=2).sum() for agreement in agreements]
        return shard.sum(torch.stack(sums)) / (2 * shard.total)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        images, texts, logit_bias, rows, columns = ctx.saved_tensors
        wants_images, wants_texts, wants_bias = ctx.needs_input_grad[:3]
        to_images = torch.zeros_like(images) if wants_images else None
        to_texts = torch.empty_like(texts) if wants_texts else None
        weights = ctx.shard.sum(weights) / (2 * ctx.shard.total)
        total, of_targets = weights.sum(), (-2 * weights).unbind()
        with torch.autocast(images.device.type, enabled=False):
            for chunk, logits in tiles(images, texts, ctx.chunk_size):
                gradient, of_columns = (logits - rows[:, None]).exp_(), logits.sub_(columns[chunk]).exp_()
                if ctx.weights is not None:
                    gradient.mul_(ctx.weights[0][:, None])
                    of_columns.mul_(ctx.weights[1][chunk])
                gradient.add_(of_columns).mul_(total)
                for weight, target in zip(of_targets, ctx.targets, strict=True):
                    target.add_to(gradient, chunk, weight)
                if to_images is not None:
                    to_images.addmm_(gradient, texts[chunk])
                if to_texts is not None:
                    torch.mm(gradient.T, images, out=to_texts[chunk])
        return to_images, to_texts, torch.zeros_like(logit_bias) if wants_bias else None, *[None] * 4
