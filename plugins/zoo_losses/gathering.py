"""Batches shared by processes: sums and gathers that pass gradients through.

Each of W processes computes the same number L, the loss of the whole batch. The backward pass of a collective sums the
gradients of all processes, and DistributedDataParallel averages over them what each has for its copy of the weights:

    gradient on process w  =  d(L + ... + L) / d theta_w      =  W dL/d theta_w
    average of all W       =  1/W sum_w (W dL/d theta_w)      =  sum_w dL/d theta_w  =  dL/d theta

Hence no rank is special, nothing is rescaled and batches may differ in size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from zoo_core.errors import InputError

__all__ = ["DTYPES", "Group", "Shard", "rank_and_count", "sum_over"]

Group = Any
"""A `torch.distributed.ProcessGroup`, a name that builds of torch without distributed do not have."""

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""What features may be."""


@dataclass(frozen=True)
class Shard:
    """The rows of this process among those of all.

    Attributes:
        group: the processes; None for the default group, or for this process alone.
        rank: which of them this is.
        sizes: how many rows each of them has.
    """

    group: Group
    rank: int
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, features: Tensor, ids: Tensor | None, group: Group, weights: Tensor | None = None) -> Shard:
        """Learn how many rows each process brings; one small exchange, and none for a process alone.

        Args:
            features: what this process brings, `[B, D]`.
            ids: its ids, if it has any.
            group: the processes; the default group where None.
            weights: its weights, if it has any.

        Raises:
            InputError: on every process alike, if one has no rows, or they differ in width, dtype or in having ids or
                weights.
        """
        if _processes(group) == 1:
            if len(features) == 0:
                raise InputError("expected at least one pair, found an empty batch")
            return cls(None, 0, (len(features),))
        numbers = torch.tensor(
            [*features.shape, DTYPES.index(features.dtype), int(ids is not None), int(weights is not None)],
            device=features.device,
        )
        gathered = [torch.empty_like(numbers) for _ in range(dist.get_world_size(group))]
        dist.all_gather(gathered, numbers, group)
        sizes, widths, dtypes, with_ids, with_weights = zip(*torch.stack(gathered).tolist(), strict=True)
        if 0 in sizes:
            raise InputError(f"expected at least one pair on every rank, found batches of {list(sizes)}")
        for what, values in (("feature widths", widths), ("dtypes", [DTYPES[index] for index in dtypes])):
            if len(set(values)) > 1:
                raise InputError(f"expected the same {what} on every rank, found {list(values)}")
        for what, having in (("ids", with_ids), ("weights", with_weights)):
            if len(set(having)) > 1:
                ranks = [rank for rank, has_them in enumerate(having) if has_them]
                raise InputError(f"expected {what} on every rank or on none, found them on ranks {ranks} alone")
        return cls(group, dist.get_rank(group), sizes)

    @property
    def start(self) -> int:
        """Number of the first row of this process."""
        return sum(self.sizes[: self.rank])

    @property
    def stop(self) -> int:
        """Number of the first row after those of this process."""
        return self.start + self.sizes[self.rank]

    @property
    def total(self) -> int:
        """Number of rows of all processes."""
        return sum(self.sizes)

    def gather(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the rows of all processes, `[N, ...]`, in the order of ranks, of `[B, ...]`.

        They travel as they are; their gradients travel, and are summed, in the dtype that is asked for.
        """
        return rows.to(dtype) if len(self.sizes) == 1 else _Gather.apply(rows, dtype, self)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over the processes of values of one shape."""
        return values if len(self.sizes) == 1 else _Sum.apply(values, self.group)

    def logsumexp(self, values: Tensor) -> Tensor:
        """Return the logarithm of the sum over the processes of the exponentials of values, which get no gradient."""
        if len(self.sizes) == 1:
            return values
        largest = values.clone()
        dist.all_reduce(largest, dist.ReduceOp.MAX, self.group)
        return largest + self.sum((values - largest).exp()).log()


def sum_over(group: Group, values: Tensor) -> Tensor:
    """Return the sum over the processes of a group of values of one shape, whatever else they hold."""
    return values if _processes(group) == 1 else _Sum.apply(values, group)


def rank_and_count(group: Group) -> tuple[int, int]:
    """Return which process this is of a group, and how many there are."""
    count = _processes(group)
    return (dist.get_rank(group) if count > 1 else 0), count


def _processes(group: Group) -> int:
    if not (dist.is_available() and dist.is_initialized()):
        return 1
    count = dist.get_world_size(group)
    if count < 1:
        raise InputError("this process is no member of the loss's process group, and so cannot share its batch")
    return count


class _Sum(Function):
    """Sum over processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return _summed(values, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _summed(gradient, ctx.group), None


class _Gather(Function):
    """Rows of all processes. Collectives want equal shapes, so that smaller batches are padded and cut again.

    The gradient is summed by all-reduce and then cut, which every backend has; reduce-scatter would send half of it.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, dtype: torch.dtype, shard: Shard) -> Tensor:
        ctx.shard, ctx.dtype = shard, rows.dtype
        padded = rows.new_zeros(max(shard.sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        gathered = [torch.empty_like(padded) for _ in shard.sizes]
        dist.all_gather(gathered, padded, shard.group)
        return torch.cat([part[:size] for part, size in zip(gathered, shard.sizes, strict=True)]).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        shard: Shard = ctx.shard
        return _summed(gradient, shard.group)[shard.start : shard.stop].to(ctx.dtype), None, None


def _summed(values: Tensor, group: Group) -> Tensor:
    summed = values.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(summed, group=group)
    return summed
