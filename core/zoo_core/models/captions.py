"""Features of captions: each is encoded once, and the ids of a long list are never all in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from zoo_core.text.tokenizer import Tokenizer
from zoo_core.text.truncation import Overflow, checked_overflow, report

__all__ = ["encode_captions"]

PORTION = 1 << 16
"""Captions whose ids are in memory at a time."""


def encode_captions(
    captions: Sequence[str], tokenizer: Tokenizer, encode: Callable[[Tensor], Tensor], overflow: Overflow
) -> Tensor:
    """Return the features `[B, D]` of captions.

    Args:
        captions: strings, of which some may be equal.
        tokenizer: turns them into ids.
        encode: gives the features `[N, D]` of ids `[N, L]`.
        overflow: what happens to captions that are too long; all of them are told at once.

    Raises:
        InputError: captions are too long and `overflow` is `error`; nothing was encoded.
    """
    checked_overflow(overflow)
    places = {caption: place for place, caption in enumerate(dict.fromkeys(captions))}
    known = list(places)
    portions = [known[start : start + PORTION] for start in range(0, len(known), PORTION)] or [known]
    if overflow == "error":
        longer = {portion[number] for portion in portions for number in tokenizer.tokenize(portion)[1]}
        _tell(longer, captions, tokenizer, overflow)
    longer, found = set[str](), list[Tensor]()
    for portion in portions:
        ids, cut = tokenizer.tokenize(portion)
        longer.update(portion[number] for number in cut)
        found.append(encode(ids))
    if overflow == "warn":
        _tell(longer, captions, tokenizer, overflow)
    features = torch.cat(found) if len(found) > 1 else found[0]
    return features[[places[caption] for caption in captions]] if len(places) < len(captions) else features


def _tell(longer: set[str], captions: Sequence[str], tokenizer: Tokenizer, overflow: Overflow) -> None:
    numbers = [number for number, caption in enumerate(captions) if caption in longer] if longer else []
    report(numbers, captions, tokenizer.context_length, overflow)
