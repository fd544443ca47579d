"""Encoding of captions and token ids, without work on padding.

Equal captions are encoded once. Rows are padded to the context length, 77 tokens in CLIP, while captions have a dozen:
a tower tells how many leading ids of a row its feature depends on (`TextTower.read_lengths`), and rows of like length
are encoded together, cut to the longest of their bucket. Lengths are rounded up to a multiple of `STEP`, so that a
compiled tower meets few shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from zoo_core.boundary.plugin_code import maker_of
from zoo_core.errors import PluginError
from zoo_core.interfaces import TextTower
from zoo_core.models.features import features_of
from zoo_core.nn.state_dict import is_sharded
from zoo_core.nn.tracing import has_values, is_symbolic
from zoo_core.text.tokenizer import Tokenizer
from zoo_core.text.truncation import Overflow, checked_overflow, report

__all__ = ["buckets", "encode_captions", "encode_rows"]

PORTION = 1 << 16
"""Captions whose ids are in memory at a time."""
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


def encode_captions(
    captions: Sequence[str], tokenizer: Tokenizer, encode: Callable[[Tensor], Tensor], overflow: Overflow
) -> Tensor:
    """Return the features `[B, D]` of captions.

    Args:
        captions: strings, of which some may be equal.
        tokenizer: turns them into ids.
        encode: gives the features `[N, D]` of ids `[N, L]`.
        overflow: what happens to captions that are too long; all of them are reported at once.

    Raises:
        InputError: captions are too long and `overflow` is `error`; nothing was encoded.
    """
    checked_overflow(overflow)
    rows = {caption: row for row, caption in enumerate(dict.fromkeys(captions))}
    distinct = list(rows)
    portions = [distinct[start : start + PORTION] for start in range(0, len(distinct), PORTION)] or [distinct]
    if overflow == "error":  # a portion that is refused must not come after others that were encoded
        too_long = {portion[index] for portion in portions for index in tokenizer.tokenize(portion)[1]}
        _report(too_long, captions, tokenizer, overflow)
    too_long, encoded = set[str](), list[Tensor]()
    for portion in portions:
        ids, truncated = tokenizer.tokenize(portion)
        too_long.update(portion[index] for index in truncated)
        encoded.append(encode(ids))
    _report(too_long, captions, tokenizer, overflow)
    return torch.cat(encoded)[[rows[caption] for caption in captions]]


def _report(too_long: set[str], captions: Sequence[str], tokenizer: Tokenizer, overflow: Overflow) -> None:
    indices = [index for index, caption in enumerate(captions) if caption in too_long]
    report(indices, captions, tokenizer.context_length, overflow)


def encode_rows(tower: TextTower, text: Tensor) -> Tensor:
    """Return the features `[B, D]` of token ids `[B, L]`: those of `tower(text)`, but for rounding.

    Rows are cut where the tower does not read to their end, and a batch is divided where it is large. Where values may
    not be looked at (`must_stay_whole`), neither is done; in training mode, and where parameters are sharded, which
    needs equally many calls in every process, rows stay one batch, cut to the longest of them.
    """
    if must_stay_whole(text):
        return features_of(tower, text)
    limit = text.shape[1]
    lengths = _read_lengths(tower, text)
    limits = LIMITS.get(text.device.type, LIMITS_ELSEWHERE)
    parts = [] if tower.training else list(buckets(lengths, limit, limits))
    if len(parts) < 2 or any(is_sharded(parameter) for parameter in tower.parameters()):
        return features_of(tower, text[:, : rounded(max(lengths), limit)])
    order = torch.tensor([row for rows, _ in parts for row in rows], device=text.device)  # [B], shortest first
    bucket_rows = torch.split(order, [len(rows) for rows, _ in parts])
    encoded = (features_of(tower, text[rows, :length]) for rows, (_, length) in zip(bucket_rows, parts, strict=True))
    if torch.is_grad_enabled():
        return torch.cat(list(encoded))[order.argsort()]
    features: Tensor | None = None
    for of_bucket, rows in zip(encoded, bucket_rows, strict=True):  # each is written, and let go of, once it is there
        if features is None:
            features = of_bucket.new_empty((len(text), *of_bucket.shape[1:]))
        features[rows] = of_bucket
    assert features is not None
    return features


def must_stay_whole(text: Tensor) -> bool:
    """Tell whether a batch goes to the tower as it is: it has no rows, or a graph is made for other captions too."""
    return is_symbolic(text) or not has_values(text) or not text.numel()


def _read_lengths(tower: TextTower, text: Tensor) -> list[int]:
    """Return how many leading ids of each row the tower reads."""
    lengths: Any = tower.read_lengths(text)
    if lengths is None:
        return [text.shape[1]] * len(text)
    if not (isinstance(lengths, Tensor) and lengths.shape == text.shape[:1]):
        promise = f"read_lengths must return numbers [{len(text)}], found {type(lengths).__name__}"
        raise PluginError(f"{maker_of(type(tower))}: {promise}")
    return cast("list[int]", cast("Any", lengths).tolist())


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
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        needed = rounded(lengths[row], limit)
        if bucket:
            length = rounded(lengths[bucket[-1]], limit)
            longer = needed > length and len(bucket) * length >= limits.few
            if longer or (len(bucket) + 1) * needed > limits.many:
                yield bucket, length
                bucket = []
        bucket.append(row)
    if bucket:
        yield bucket, rounded(lengths[bucket[-1]], limit)


def rounded(length: int, limit: int) -> int:
    """Return `length` rounded up to a multiple of `STEP`, but no more than `limit`."""
    return min(limit, -(-length // STEP) * STEP)
