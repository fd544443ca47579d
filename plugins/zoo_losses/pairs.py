"""Losses over image-text pairs: shared options, checks and batches.

Each process holds its own images against the texts of all processes, so that of every pair of the whole batch the
logit is computed once, and only texts travel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from zoo_core.boundary import checked
from zoo_core.config import LossConfig
from zoo_core.errors import InputError, describe
from zoo_core.images.patches import described
from zoo_losses.gathering import DTYPES, Group, Shard, rank_and_count

__all__ = [
    "GatheringLoss",
    "PairLoss",
    "Pairs",
    "Weights",
    "check_number",
    "check_one",
    "check_weights",
    "describe_argument",
    "is_set",
    "mean_weights",
    "pair_weights",
    "paired_entries",
    "tiles",
]

TILE = {"cpu": 2**21}
"""Logits of a tile where no chunk size is given: 8 MiB in float32, which stay in the caches.

Measured on one CPU thread for batches of 512 to 8192 and width 512 (tests/benchmarks/bench_losses.py), chunks of 256 to
1024 texts take no longer than the whole at once, and less from 4096 pairs on.
"""

GPU_TILE = 2**25
"""The same on a GPU, where a tile has to be worth its kernels: 128 MiB in float32 (tests/benchmarks/bench_gpu.py)."""

MIN_CHUNK = 256
"""Texts of a tile at the least where no chunk size is given; 128 took up to a tenth longer."""


Weights = tuple[Tensor, Tensor] | None
"""Factors of rows `[B]` and of columns `[N]`; None where all are 1."""


class PairLoss(nn.Module):
    """A loss over a batch of image-text pairs, exact on any number of processes.

    Inside a process group the batch is that of all its processes: the value, the same on every one of them, is that
    of one process with the whole batch, and so are gradients once averaged over processes, as
    DistributedDataParallel averages them. Each process of the group must therefore call the loss. Batches may differ
    in size. Arguments by which open_clip learns of the processes are accepted, and checked when the loss is computed.

    Args:
        chunk_size: texts that are held against the images of this process at a time, in forward and in backward,
            so that memory is `O(B * chunk_size)`; None picks the largest that keeps a tile of logits within 8 MiB
            (float32; 128 MiB on a GPU), and at least 256, which is as fast as all at once. It never changes the
            result but by rounding.
        group: the processes that share the batch; the default process group where None, if there is one. A loss that
            has a group can neither be pickled nor copied, since its group cannot.
        cache_labels: taken, and without effect: no labels are made.
        rank: which of the processes this is; an error where it is another. Not looked at where None.
        world_size: how many there are; an error where there are more or fewer. Not looked at where None.

    Raises:
        InputError: a number that is no whole number of its range.
    """

    def __init__(
        self,
        *,
        chunk_size: int | None = None,
        group: Group = None,
        cache_labels: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (("chunk_size", chunk_size, 1), ("rank", rank, 0), ("world_size", world_size, 1)):
            if value is not None and (type(value) is not int or value < least):
                raise InputError(f"{name} must be a whole number of at least {least}, or None, found {describe(value)}")
        self.chunk_size = chunk_size
        self.group = group
        self.cache_labels = cache_labels
        self.rank = rank
        self.world_size = world_size

    def check_processes(self) -> int:
        """Return how many processes share the batch, checked against the arguments of the loss.

        Raises:
            InputError: there are others than its arguments say.
        """
        rank, count = rank_and_count(self.group)
        if self.world_size not in (None, count):
            processes = f"{count} process{'es' if count > 1 else ''}"
            fix = "call torch.distributed.init_process_group first" if count == 1 else "leave it out, or give group="
            raise InputError(f"world_size={self.world_size}, but {processes} would share the batch; {fix}")
        if count > 1 and self.rank not in (None, rank):
            raise InputError(f"rank={self.rank}, but this is process {rank} of {count}; leave it out")
        return count

    @classmethod
    def from_config(cls, config: LossConfig) -> Self:
        """Build from a config, each of whose keys but `type` is an argument."""
        return cls(**config.model_dump(exclude={"type"}))

    def extra_repr(self) -> str:
        """Return the option that is not the default."""
        return "" if self.chunk_size is None else f"chunk_size={self.chunk_size}"


class GatheringLoss(PairLoss):
    """A loss that open_clip also computes in ways that train another model; these are refused.

    Args:
        local_loss: taken: gradients, once averaged over processes, are the same. The value here is always that of the
            whole batch, the mean of the local ones.
        gather_with_grad: False is an error among several processes, where it would leave out gradients. True where
            no argument names the processes; False, as in open_clip, where only other arguments of these are given.
        use_horovod: True is an error.
        options: those of `PairLoss`.

    Raises:
        InputError: an argument of a wrong type or range, or one that cannot be done.
    """

    @checked
    def __init__(
        self,
        *,
        local_loss: bool | None = None,
        gather_with_grad: bool | None = None,
        use_horovod: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if use_horovod:
            raise InputError("use_horovod: processes share a batch through torch.distributed alone; leave it out")
        without_options = local_loss is None and self.rank is None and self.world_size is None
        self.local_loss = bool(local_loss)
        self.gather_with_grad = without_options if gather_with_grad is None else bool(gather_with_grad)
        self.use_horovod = False
        if self.world_size is not None and self.world_size > 1:
            self._check_gradients()

    def check_processes(self) -> int:
        """Return how many processes share the batch, checked against the arguments of the loss."""
        count = super().check_processes()
        if count > 1:
            self._check_gradients()
        return count

    def _check_gradients(self) -> None:
        if not self.gather_with_grad:
            raise InputError(
                "gather_with_grad=False, open_clip's default, leaves out the gradients of other processes, which "
                "trains another model than one process with the whole batch; give gather_with_grad=True"
            )


@dataclass(frozen=True)
class Pairs:
    """A batch made ready: logits are `images @ texts.T`, in float32 or float64.

    Attributes:
        shard: the rows of this process among those of all.
        images: features of this process times the logit scale, `[B, D]`.
        texts: features of all processes, `[N, D]`.
        row_ids: which pairs are positives of the rows, `[B]`; None where only its own text is an image's.
        column_ids: the same for the columns, `[N]`.
        row_weights: factors of what the rows add to the loss, `[B]`; None where all are 1.
        column_weights: the same for the columns, `[N]`.
    """

    shard: Shard
    images: Tensor
    texts: Tensor
    row_ids: Tensor | None
    column_ids: Tensor | None
    row_weights: Tensor | None = None
    column_weights: Tensor | None = None

    @classmethod
    def of(
        cls,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor,
        ids: Tensor | None = None,
        *,
        weights: Tensor | None = None,
        group: Group = None,
        prefix: str = "",
    ) -> Pairs:
        """Check a batch, gather its texts, and scale its images.

        Half precision is computed in float32, also under autocast: at a logit scale of 100 a logit in bfloat16 is
        off by up to 0.25.

        Args:
            image_features: unit-norm features of this process, `[B, D]`.
            text_features: unit-norm features of this process, `[B, D]`.
            logit_scale: factor of the cosines, `[]` or `[1]`.
            ids: int64 `[B]`; pairs of one id are positives of each other.
            weights: `[B]`, factors of what each pair adds to the loss.
            group: the processes that share the batch.
            prefix: what the names of the arguments start with in errors.

        Raises:
            InputError: a tensor of a wrong shape, dtype or device, or an empty batch.
        """
        _check_features(image_features, text_features, prefix)
        check_one(f"{prefix}logit_scale", logit_scale, image_features)
        _check_ids(ids, image_features)
        check_weights(weights, image_features)
        shard = Shard.of(text_features, ids, group, weights)
        dtype = torch.float64 if torch.float64 in (image_features.dtype, text_features.dtype) else torch.float32
        return cls(
            shard,
            images=image_features.to(dtype) * logit_scale.to(dtype),
            texts=shard.gather(text_features, dtype),
            row_ids=ids,
            column_ids=None if ids is None else shard.gather(ids, ids.dtype),
            row_weights=None if weights is None else weights.detach().to(dtype),
            column_weights=None if weights is None else shard.gather(weights.detach(), dtype),
        )


def tiles(images: Tensor, texts: Tensor, chunk_size: int | None) -> Iterator[tuple[slice, Tensor]]:
    """Yield the logits `[B, chunk]` of all texts, a chunk of columns at a time, each with its columns."""
    columns = len(texts)
    step = chunk_size or max(MIN_CHUNK, TILE.get(images.device.type, GPU_TILE) // len(images))
    for start in range(0, columns, step):
        chunk = slice(start, min(start + step, columns))
        yield chunk, images @ texts[chunk].T


def paired_entries(tile: Tensor, chunk: slice, first: int) -> tuple[slice, Tensor]:
    """Return which rows of a tile `[B, chunk]` have their own pair in it, and a view of those entries.

    Args:
        tile: columns `chunk` of a matrix whose row `i` has its own pair in column `first + i`.
        chunk: the columns.
        first: number of the first row among those of all processes.
    """
    entries = tile.diagonal(first - chunk.start)
    start = min(max(0, chunk.start - first), len(tile))
    return slice(start, start + len(entries)), entries


def pair_weights(pairs: Pairs) -> Weights:
    """Return the factors of the pairs of a batch."""
    if pairs.row_weights is None or pairs.column_weights is None:
        return None
    return pairs.row_weights, pairs.column_weights


def mean_weights(weights: tuple[Tensor, Tensor], chunk: slice) -> Tensor:
    """Return the factors of some columns held against all rows, `[B, chunk]`: the mean of either's."""
    rows, columns = weights
    return (rows[:, None] + columns[chunk]) / 2


def check_one(name: str, value: Any, features: Tensor) -> None:
    """Check that a logit scale or bias is one floating-point number beside the features."""
    if not isinstance(value, Tensor) or value.numel() != 1 or value.ndim > 1 or not value.is_floating_point():
        raise InputError(f"{name} must be a floating-point tensor [] or [1], found {describe_argument(value)}")
    _check_device(name, value, features)


def check_number(name: str, value: Any) -> None:
    """Check that a weight is a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise InputError(f"{name} must be a finite number of at least 0, found {describe(value)}")


def is_set(name: str, value: Any) -> bool:
    """Return a switch, which is True or False."""
    if not isinstance(value, bool):
        raise InputError(f"{name} must be True or False, found {describe_argument(value)}")
    return value


def describe_argument(value: Any) -> str:
    """Return what an argument is, for an error."""
    return described(value) if isinstance(value, Tensor) else f"{type(value).__name__} {describe(value)}"


def _check_features(images: Any, texts: Any, prefix: str) -> None:
    for name, features in (("image_features", images), ("text_features", texts)):
        if not isinstance(features, Tensor) or features.dtype not in DTYPES:
            raise InputError(
                f"{prefix}{name} must be a floating-point tensor [B, D], found {describe_argument(features)}"
            )
    if images.ndim != 2 or images.shape != texts.shape:
        raise InputError(
            f"expected image and text features of one shape [B, D], found {prefix}image_features "
            f"{list(images.shape)} and {prefix}text_features {list(texts.shape)}"
        )
    _check_device(f"{prefix}text_features", texts, images)


def _check_ids(ids: Any, features: Tensor) -> None:
    if ids is None:
        return
    if not isinstance(ids, Tensor) or ids.dtype != torch.int64 or ids.shape != features.shape[:1]:
        raise InputError(
            f"ids must be a tensor of int64 [{len(features)}], one of each pair, found {describe_argument(ids)}"
        )
    _check_device("ids", ids, features)


def check_weights(weights: Any, features: Tensor) -> None:
    """Check that there is a factor for each of some samples, whose features or logits these are."""
    if weights is None:
        return
    if not isinstance(weights, Tensor) or not weights.is_floating_point() or weights.shape != features.shape[:1]:
        raise InputError(
            f"weights must be a floating-point tensor [{len(features)}], one of each pair, "
            f"found {describe_argument(weights)}"
        )
    _check_device("weights", weights, features)


def _check_device(name: str, value: Tensor, features: Tensor) -> None:
    if value.device != features.device:
        raise InputError(
            f"{name} is on {value.device}, but the image features are on {features.device}; move one of them"
        )
