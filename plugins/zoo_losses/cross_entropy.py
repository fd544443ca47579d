"""Symmetric cross-entropy of images against texts and texts against images, a tile of logits at a time.

With targets `w` whose rows and whose columns each sum to 1, the cross-entropies of all rows and of all columns are

    sum_i log sum_j exp(s_ij)  +  sum_j log sum_i exp(s_ij)  -  2 sum_ij w_ij s_ij

so that one pass over the logits gives both directions. The backward pass computes each tile again, and its gradient
in place; neither pass holds more than a few tiles.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from zoo_losses.gathering import Shard
from zoo_losses.pairs import Pairs, own_pairs, tiles

__all__ = ["Targets", "Teacher", "positives", "symmetric_cross_entropies"]


class Targets(ABC):
    """What the logits should say, without gradient: the mean of the targets of both directions."""

    @abstractmethod
    def agreement(self, where: slice, logits: Tensor) -> Tensor:
        """Return the sums over some columns of target times logit, `[B]`, of a tile of logits `[B, chunk]`."""

    @abstractmethod
    def add_to(self, gradient: Tensor, where: slice, weight: Tensor) -> None:
        """Add the targets of some columns, times the weight `[B]` of each row, to a tile."""


def positives(pairs: Pairs) -> Targets:
    """Return the targets of a batch: each image's own text, or all texts of its id."""
    if pairs.row_ids is None or pairs.column_ids is None:
        return OwnPairs(pairs.shard.start)
    return SharedIds.of(pairs.row_ids, pairs.column_ids, pairs.images.dtype)


@dataclass(frozen=True)
class OwnPairs(Targets):
    """The target of a row is its own text alone, for which no matrix is made.

    Attributes:
        first: number of the first row among those of all processes.
    """

    first: int

    def agreement(self, where: slice, logits: Tensor) -> Tensor:
        """Return the logits of the own pairs."""
        found = logits.new_zeros(len(logits))
        rows, own = own_pairs(logits, where, self.first)
        found[rows] = own
        return found

    def add_to(self, gradient: Tensor, where: slice, weight: Tensor) -> None:
        """Add the weights to the own pairs."""
        rows, own = own_pairs(gradient, where, self.first)
        own += weight[rows]


class DenseTargets(Targets):
    """Targets that any pair can have a share of."""

    @abstractmethod
    def tile(self, where: slice, like: Tensor) -> Tensor:
        """Return the targets of some columns, `[B, chunk]`."""

    def agreement(self, where: slice, logits: Tensor) -> Tensor:
        """Return the sums of target times logit."""
        return (self.tile(where, logits) * logits).sum(dim=1)

    def add_to(self, gradient: Tensor, where: slice, weight: Tensor) -> None:
        """Add the targets times the weights."""
        gradient.addcmul_(self.tile(where, gradient), weight[:, None])


@dataclass(frozen=True)
class SharedIds(DenseTargets):
    """Targets that are uniform over the pairs of one id.

    Attributes:
        rows: ids `[B]`.
        columns: ids `[N]`.
        share: one over how many columns have the id of a row, `[B, 1]`.
    """

    rows: Tensor
    columns: Tensor
    share: Tensor

    @classmethod
    def of(cls, rows: Tensor, columns: Tensor, dtype: torch.dtype) -> SharedIds:
        """Count the positives of each row."""
        known, rows = columns.sort().values, rows.contiguous()
        count = torch.searchsorted(known, rows, right=True) - torch.searchsorted(known, rows)
        return cls(rows, columns, count.to(dtype).reciprocal()[:, None])

    def tile(self, where: slice, like: Tensor) -> Tensor:
        """Return the targets, which are the same in both directions."""
        return torch.where(self.rows[:, None] == self.columns[where], self.share, 0)


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

    def tile(self, where: slice, like: Tensor) -> Tensor:
        """Return the mean of the probabilities of the texts of each image and of the images of each text."""
        logits = self.images @ self.texts[where].T
        to_texts = (logits - self.rows[:, None]).exp_()
        return (logits.sub_(self.columns[where]).exp_() + to_texts).mul_(0.5).to(like.dtype)


def symmetric_cross_entropies(pairs: Pairs, targets: Sequence[Targets], chunk_size: int | None) -> Tensor:
    """Return for each of several targets the mean of both directions over the batch of all processes, `[T]`."""
    with torch.autocast(pairs.images.device.type, enabled=False):
        rows, columns, agreement = _Terms.apply(pairs.images, pairs.texts, tuple(targets), chunk_size)
        return _mean(pairs.shard, rows, columns, agreement)


def _mean(shard: Shard, rows: Tensor, columns: Tensor, agreement: Tensor) -> Tensor:
    """Each process adds the rows and the columns of its own pairs, so that near-equal numbers are subtracted first."""
    own = shard.logsumexp(columns)[shard.start : shard.stop]
    return shard.sum((rows + own - 2 * agreement).sum(dim=1)) / (2 * shard.total)


def _terms(
    images: Tensor, texts: Tensor, targets: Sequence[Targets], chunk_size: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-sum-exp of rows `[B]` and of columns `[N]`, and the sums of target times logit `[T, B]`."""
    rows = images.new_full((len(images),), -torch.inf)
    columns = texts.new_empty(len(texts))
    agreement = images.new_zeros(len(targets), len(images))
    for where, logits in tiles(images, texts, chunk_size):
        rows = torch.logaddexp(rows, logits.logsumexp(dim=1))
        columns[where] = logits.logsumexp(dim=0)
        for index, target in enumerate(targets):
            agreement[index] += target.agreement(where, logits)
    return rows, columns, agreement


class _Terms(Function):
    """`_terms`, whose backward pass computes the logits again."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, texts: Tensor, targets: Sequence[Targets], chunk_size: int | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows, columns, agreement = _terms(images, texts, targets, chunk_size)
        ctx.save_for_backward(images, texts, rows, columns)
        ctx.targets, ctx.chunk_size = targets, chunk_size
        return rows, columns, agreement

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        images, texts, rows, columns = ctx.saved_tensors
        of_rows, of_columns, of_agreement = gradients
        to_images = torch.zeros_like(images) if ctx.needs_input_grad[0] else None
        to_texts = torch.empty_like(texts) if ctx.needs_input_grad[1] else None
        with torch.autocast(images.device.type, enabled=False):
            for where, logits in tiles(images, texts, ctx.chunk_size):
                gradient = (logits - rows[:, None]).exp_().mul_(of_rows[:, None])
                for weight, target in zip(of_agreement, ctx.targets, strict=True):
                    target.add_to(gradient, where, weight)
                gradient += logits.sub_(columns[where]).exp_().mul_(of_columns[where])
                if to_images is not None:
                    to_images.addmm_(gradient, texts[where])
                if to_texts is not None:
                    torch.mm(gradient.T, images, out=to_texts[where])
        return to_images, to_texts, None, None
