"""Order of training: which rows each step takes, as a pure function of seed and step.

Nothing is drawn and nothing is remembered, so a run that was killed, or that has other workers or processes, takes the
very rows that it would have taken. Its state is the number of the step.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zoo_core.errors import DataError

__all__ = ["Integers", "Key", "Order", "Permutation", "seed_of"]

Integers: TypeAlias = NDArray[np.int64]
Shuffle = Literal["full", "window", "none"]

ROUNDS = 16
"""Rounds of the permutation: with fewer, orders of a handful of rows are not equally likely."""
PERIOD_ROWS = 65_536
"""Rows within which each data set of a mixture gets its share exactly."""

_ROWS, _BLOCKS, _WINDOW, _SLOTS = range(4)
"""What a permutation is of: its last keys, so that no two of them are alike."""


class Key(NamedTuple):
    """A row of a step: the data set of the mixture, the pass over it, and the row in it."""

    dataset: int
    epoch: int
    row: int


def seed_of(seed: int, *keys: int | str) -> int:
    """Return 63 bits that depend on a seed and on keys: equal for equal ones, unrelated for others."""
    digest = hashlib.blake2b(struct.pack("<q", seed), digest_size=8)
    for key in keys:
        digest.update(struct.pack("<q", key) if isinstance(key, int) else key.encode() + b"\0")
    return int.from_bytes(digest.digest(), "little") >> 1


class Permutation:
    """A permutation of `0 .. size - 1` that is computed value by value, in no memory.

    It is a Feistel network over pairs of remainders (Black and Rogaway 2002), whose domain is hardly larger than
    `size`; values beyond are sent through it again until they fall within.

    Args:
        size: number of values.
        seed: decides the permutation.
        keys: decide it too, such as the number of a data set and of a pass.
    """

    def __init__(self, size: int, seed: int, *keys: int) -> None:
        self.size = size
        self._upper = max(1, math.isqrt(max(0, size - 1)) + 1)
        self._lower = -(-size // self._upper)
        self._keys = [np.uint64(seed_of(seed, *keys, number)) for number in range(ROUNDS)]

    def __call__(self, positions: Integers) -> Integers:
        """Return the value at each position; positions are in `0 .. size - 1`."""
        values = self._permuted(positions)
        outside = np.flatnonzero(values >= self.size)
        while len(outside):
            values[outside] = self._permuted(values[outside])
            outside = outside[values[outside] >= self.size]
        return values

    def _permuted(self, values: Integers) -> Integers:
        upper, lower = np.divmod(values.astype(np.uint64), np.uint64(self._lower))
        for number, key in enumerate(self._keys):
            if number % 2:
                lower = (lower + _mixed(upper + key) % np.uint64(self._lower)) % np.uint64(self._lower)
            else:
                upper = (upper + _mixed(lower + key) % np.uint64(self._upper)) % np.uint64(self._upper)
        return (upper * np.uint64(self._lower) + lower).astype(np.int64)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return 64-bit values all of whose bits depend on all bits of `values`: the finalizer of SplitMix64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class Order:
    """Which rows each step takes.

    A single data set is passed over again and again, each time in another order; what does not fill a batch at the
    end of a pass is left out, each time something else. Of a mixture each data set gets its share of the rows within
    each period of about 65,536 rows, and is passed over at its own pace.

    Args:
        sizes: rows of each data set.
        weights: shares of the rows, in any unit.
        batch: rows of a step, over all processes.
        seed: decides the order.
        shuffle: whether all rows are mixed, those of a few blocks at a time, or none.
        blocks: for each data set how many rows lie together, block after block; None where all are as near.
        window_blocks: how many blocks are mixed at a time.

    Raises:
        DataError: there is no step to take, or a data set whose share is no row.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        weights: Sequence[float],
        *,
        batch: int,
        seed: int,
        shuffle: Shuffle = "full",
        blocks: Sequence[Sequence[int] | None] | None = None,
        window_blocks: int = 64,
    ) -> None:
        self.sizes, self.batch, self.seed, self.shuffle = list(sizes), batch, seed, shuffle
        self._window_blocks = window_blocks
        of_blocks = blocks or [None] * len(self.sizes)
        self._blocks = [None if lengths is None else np.asarray(lengths, np.int64) for lengths in of_blocks]
        self._period = max(1, PERIOD_ROWS // batch)
        self._quotas = _quotas(weights, self._period * batch)
        self._check(weights)
        self._slots = lru_cache(2)(self._slots_of)
        self._windows = lru_cache(2 * len(self.sizes))(self._windows_of)

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps of a pass over the data set, over the first one of a mixture."""
        if len(self.sizes) == 1:
            return self.sizes[0] // self.batch
        return max(1, self.sizes[0] * self._period // int(self._quotas[0]))

    def rows(self, step: int, first: int = 0, last: int | None = None) -> list[Key]:
        """Return the rows of a step, counted from 0: all of them, or those from `first` to before `last`."""
        datasets, epochs, positions = self._places(step)
        part = slice(first, last)
        datasets, epochs, positions = datasets[part], epochs[part], positions[part]
        indices = np.empty_like(positions)
        for dataset, epoch in sorted({*zip(datasets.tolist(), epochs.tolist(), strict=True)}):
            chosen = (datasets == dataset) & (epochs == epoch)
            indices[chosen] = self._indices(dataset, epoch, positions[chosen])
        columns = (datasets.tolist(), epochs.tolist(), indices.tolist())
        return [Key(*row) for row in zip(*columns, strict=True)]

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name not in ("_slots", "_windows")}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._slots = lru_cache(2)(self._slots_of)
        self._windows = lru_cache(2 * len(self.sizes))(self._windows_of)

    def _check(self, weights: Sequence[float]) -> None:
        for number, (size, quota) in enumerate(zip(self.sizes, self._quotas.tolist(), strict=True)):
            if size < 1:
                raise DataError(f"data set {number} has no sample")
            if quota < 1:
                share = weights[number] / sum(weights)
                raise DataError(
                    f"data set {number} has a share of {share:.1e}, which is none of {self._period * self.batch:,} "
                    "rows; raise its weight"
                )
        if len(self.sizes) == 1 and self.sizes[0] < self.batch:
            raise DataError(
                f"0 steps: {self.sizes[0]:,} samples do not fill a batch of {self.batch:,}; "
                f"set batch.size to {self.sizes[0]} at most"
            )

    def _places(self, step: int) -> tuple[Integers, Integers, Integers]:
        """Return data set, pass and position in the pass of each row of a step."""
        if len(self.sizes) == 1:
            return self._places_of_one(step)
        period, number = divmod(step, self._period)
        datasets, ordinals = self._slots(period)
        part = slice(number * self.batch, (number + 1) * self.batch)
        datasets = datasets[part]
        counts = period * self._quotas[datasets] + ordinals[part]
        epochs, positions = np.divmod(counts, np.asarray(self.sizes, np.int64)[datasets])
        return datasets, epochs, positions

    def _places_of_one(self, step: int) -> tuple[Integers, Integers, Integers]:
        size = self.sizes[0]
        epoch, number = divmod(step, self.steps_per_epoch)
        positions = np.arange(number * self.batch, (number + 1) * self.batch, dtype=np.int64)
        if self.shuffle == "none":  # a pass begins where the last one ended
            positions = (positions + epoch * self.steps_per_epoch * self.batch) % size
        return np.zeros_like(positions), np.full_like(positions, epoch), positions

    def _slots_of(self, period: int) -> tuple[Integers, Integers]:
        """Return the data set of each row of a period, and how many rows of the data set come before it there."""
        total = int(self._quotas.sum())
        slots = Permutation(total, self.seed, _SLOTS, period)(np.arange(total, dtype=np.int64))
        datasets = np.searchsorted(np.cumsum(self._quotas), slots, side="right").astype(np.int64)
        ordinals = np.empty_like(datasets)
        starts = np.cumsum(self._quotas) - self._quotas
        by_dataset = np.argsort(datasets, kind="stable")
        ordinals[by_dataset] = np.arange(total) - np.repeat(starts, self._quotas)
        return datasets, ordinals

    def _indices(self, dataset: int, epoch: int, positions: Integers) -> Integers:
        """Return the rows at positions of a pass over a data set."""
        if self.shuffle == "none":
            return positions
        if self.shuffle == "full" or self._blocks[dataset] is None:
            return Permutation(self.sizes[dataset], self.seed, dataset, epoch, _ROWS)(positions)
        starts, order, edges, windows = self._windows(dataset, epoch)
        indices = np.empty_like(positions)
        places = np.searchsorted(windows, positions, side="right") - 1
        for window in np.unique(places).tolist():
            chosen = places == window
            begin, end = int(windows[window]), int(windows[window + 1])
            mixed = begin + Permutation(end - begin, self.seed, dataset, epoch, window, _WINDOW)(
                positions[chosen] - begin
            )
            block = np.searchsorted(edges, mixed, side="right") - 1
            indices[chosen] = starts[order[block]] + mixed - edges[block]
        return indices

    def _windows_of(self, dataset: int, epoch: int) -> tuple[Integers, Integers, Integers, Integers]:
        """Return where each block begins, the order of the blocks, where each begins in it, and each window."""
        lengths = self._blocks[dataset]
        assert lengths is not None
        count = len(lengths)
        order = Permutation(count, self.seed, dataset, epoch, _BLOCKS)(np.arange(count, dtype=np.int64))
        edges = np.concatenate([[0], np.cumsum(lengths[order])])
        windows = np.append(edges[: -1 : self._window_blocks], edges[-1])
        return np.cumsum(lengths) - lengths, order, edges[:-1], windows


def _quotas(weights: Sequence[float], rows: int) -> Integers:
    """Return whole numbers in proportion to weights that add up to `rows`, by the method of the largest remainder."""
    exact = np.asarray(weights, np.float64) / math.fsum(weights) * rows
    quotas = np.floor(exact).astype(np.int64)
    largest = np.argsort(-(exact - quotas), kind="stable")[: rows - int(quotas.sum())]
    quotas[largest] += 1
    return quotas
