"""Features of token ids without the work on what cannot change them: captions of like length are encoded together.

Rows are padded to the context length, 77 tokens in CLIP, while captions have a dozen. A tower tells how many leading
ids of a row its feature depends on (`TextTower.read_lengths`); rows are sorted by that, cut to the longest of their
bucket and encoded bucket by bucket. Lengths are rounded up to a multiple of `STEP`, so that a compiled tower meets few
shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from zoo_core.interfaces import TextTower
from zoo_core.state_dicts import is_sharded

__all__ = ["buckets", "encode_rows"]

STEP = 8
"""Lengths are multiples of this."""


class Limits(NamedTuple):
    """How many tokens a bucket should hold on a kind of device.

    Attributes:
        few: a bucket with fewer takes in longer rows, since it costs more to start than to compute.
        many: a bucket of more is divided, since what a block makes of it would leave the caches, or fill the memory.
    """

    few: int
    many: int


LIMITS = {"cpu": Limits(few=256, many=2_048)}
LIMITS_ELSEWHERE = Limits(few=8_192, many=131_072)
"""A GPU starts a tower in the time in which it computes some thousand tokens."""


def encode_rows(tower: TextTower, text: Tensor) -> Tensor:
    """Return the features `[B, D]` of token ids `[B, L]`: those of `tower(text)`, but for rounding.

    Rows are encoded as they are where the tower reads all of them, and inside torch.compile and torch.export. In
    training mode, and where parameters are sharded, which needs equally many calls in every process, they stay one
    batch, cut to its longest row.
    """
    if torch.compiler.is_compiling() or text.is_meta or not text.numel():
        return tower(text)
    lengths = tower.read_lengths(text)
    if lengths is None:
        return tower(text)
    known = cast("list[int]", lengths.tolist())  # pyright: ignore[reportUnknownMemberType]
    limits = LIMITS.get(text.device.type, LIMITS_ELSEWHERE)
    parts = [] if tower.training else list(buckets(known, text.shape[1], limits))
    if len(parts) < 2 or any(is_sharded(parameter) for parameter in tower.parameters()):
        return tower(text[:, : rounded(max(known), text.shape[1])])
    order = torch.tensor([row for rows, _ in parts for row in rows], device=text.device)
    sorted_text = text[order]
    features: list[Tensor] = []
    start = 0
    for rows, length in parts:
        features.append(tower(sorted_text[start : start + len(rows), :length]))
        start += len(rows)
    return torch.cat(features)[order.argsort()]


def buckets(lengths: Sequence[int], limit: int, limits: Limits) -> Iterator[tuple[list[int], int]]:
    """Divide rows into buckets.

    Args:
        lengths: what is read of each row.
        limit: length of the rows.
        limits: how many tokens a bucket should hold; it has more than `many` only where a single row has.

    Yields:
        numbers of rows, shortest first over all buckets, and the length that holds every one of them.
    """
    bucket: list[int] = []
    length = 0
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        needed = rounded(lengths[row], limit)
        longer = needed > length and len(bucket) * length >= limits.few
        if bucket and (longer or (len(bucket) + 1) * needed > limits.many):
            yield bucket, length
            bucket = []
        bucket.append(row)
        length = needed
    if bucket:
        yield bucket, length


def rounded(length: int, limit: int) -> int:
    """Return `length` rounded up to a multiple of `STEP`, but no more than `limit`."""
    return min(limit, -(-length // STEP) * STEP)
