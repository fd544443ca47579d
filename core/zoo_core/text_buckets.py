"""Features of token ids without the work on what cannot change them: captions of like length are encoded together.

Rows are padded to the context length, 77 tokens in CLIP, while captions have a dozen. A tower tells how many leading
ids of a row its feature depends on (`TextTower.read_lengths`); rows are sorted by that, cut to the longest of their
bucket and encoded bucket by bucket. Lengths are rounded up to a multiple of `STEP`, so that a compiled tower meets few
shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor

from zoo_core.interfaces import TextTower
from zoo_core.state_dicts import is_sharded

__all__ = ["buckets", "encode_rows"]

STEP = 8
"""Lengths are multiples of this."""
FEW_TOKENS = 256
"""A bucket with fewer tokens takes in longer rows, since matrix products of few rows are slow."""
MANY_TOKENS = {"cpu": 2_048}
"""A bucket of more tokens is divided, since what a block makes of it would leave the caches, or fill the memory."""
MANY_TOKENS_ELSEWHERE = 131_072


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
    many = MANY_TOKENS.get(text.device.type, MANY_TOKENS_ELSEWHERE)
    parts = [] if tower.training else list(buckets(known, text.shape[1], many))
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


def buckets(lengths: Sequence[int], limit: int, many: int) -> Iterator[tuple[list[int], int]]:
    """Divide rows into buckets.

    Args:
        lengths: what is read of each row.
        limit: length of the rows.
        many: tokens that a bucket holds at most, unless a single row has more.

    Yields:
        numbers of rows, shortest first over all buckets, and the length that holds every one of them.
    """
    bucket: list[int] = []
    length = 0
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        needed = rounded(lengths[row], limit)
        longer = needed > length and len(bucket) * length >= FEW_TOKENS
        if bucket and (longer or (len(bucket) + 1) * needed > many):
            yield bucket, length
            bucket = []
        bucket.append(row)
        length = needed
    if bucket:
        yield bucket, length


def rounded(length: int, limit: int) -> int:
    """Return `length` rounded up to a multiple of `STEP`, but no more than `limit`."""
    return min(limit, -(-length // STEP) * STEP)
