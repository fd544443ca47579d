"""Features of token ids without the work on what cannot change them: captions of like length are encoded together.

Rows are padded to the context length, 77 tokens in CLIP, while captions have a dozen. A tower tells how many leading
ids of a row its feature depends on (`TextTower.read_lengths`); rows are sorted by that, cut to the longest of their
bucket and encoded bucket by bucket. Lengths are rounded up to a multiple of `STEP`, so that a compiled tower meets few
shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from zoo_core.boundary.plugin_code import maker_of
from zoo_core.errors import PluginError
from zoo_core.interfaces import TextTower
from zoo_core.models.towers import features_of
from zoo_core.nn.state_dict import is_sharded
from zoo_core.nn.tracing import has_values, is_symbolic

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

    Rows stay whole where the tower reads all of them; a long list of those is divided all the same, for memory. Where a
    graph is made for other captions (see `zoo_core.nn.tracing`), nothing is cut or divided. In training mode, and where
    parameters are sharded, which needs equally many calls in every process, rows stay one batch, cut to the longest of
    them.
    """
    if is_symbolic(text) or not has_values(text) or not text.numel():
        return features_of(tower, text)
    limit = text.shape[1]
    lengths = tower.read_lengths(text)
    if lengths is not None and not (isinstance(lengths, Tensor) and lengths.shape == text.shape[:1]):  # pyright: ignore[reportUnnecessaryIsInstance]
        told = f"read_lengths must return numbers [{len(text)}], found {type(lengths).__name__}"
        raise PluginError(f"{maker_of(type(tower))}: {told}")
    known = [limit] * len(text) if lengths is None else cast("list[int]", lengths.tolist())  # pyright: ignore[reportUnknownMemberType]
    limits = LIMITS.get(text.device.type, LIMITS_ELSEWHERE)
    parts = [] if tower.training else list(buckets(known, limit, limits))
    if len(parts) < 2 or any(is_sharded(parameter) for parameter in tower.parameters()):
        return features_of(tower, text[:, : rounded(max(known), limit)])
    order = torch.tensor([row for rows, _ in parts for row in rows], device=text.device)
    places = torch.split(order, [len(rows) for rows, _ in parts])
    encoded = (features_of(tower, text[rows, :length]) for rows, (_, length) in zip(places, parts, strict=True))
    if torch.is_grad_enabled():
        return torch.cat(list(encoded))[order.argsort()]
    return _gathered(encoded, places, len(text))


def _gathered(encoded: Iterable[Tensor], places: Iterable[Tensor], count: int) -> Tensor:
    """Return the features of all buckets at their places; each bucket is written, and let go of, once it is there."""
    gathered: Tensor | None = None
    for features, rows in zip(encoded, places, strict=True):
        if gathered is None:
            gathered = features.new_empty((count, *features.shape[1:]))
        gathered[rows] = features
    assert gathered is not None
    return gathered


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
