"""From rows of an order to batches.

It runs in workers. What it gives depends on seed and step alone: chance in augmentation comes from a generator for each
row, and a sample that cannot be used is replaced by one that its row decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from zoo.training.data.batch import BadSample, Batch
from zoo.training.data.order import Integers, Key, Order, seed_of
from zoo_core.boundary.plugin_code import maker_of, passes
from zoo_core.errors import DataError, InputError, PluginError, SampleError, describe, reason
from zoo_core.models.modality import Modality
from zoo_core.training import Dataset, Sample, SampleSource

__all__ = ["BatchReader", "Prepared", "SamplePreparer", "read_sample"]

MAX_ATTEMPTS = 100
"""Samples that are tried in place of a bad one."""


@dataclass(frozen=True)
class Prepared:
    """A sample that is ready to be collated."""

    key: Key
    inputs: dict[str, Any]
    id: int
    weight: float


@dataclass(frozen=True)
class SamplePreparer:
    """Makes what models take of samples.

    Attributes:
        modalities: for each modality of the model, its handler and what prepares its inputs.
        choices: for each data set, which of several inputs is taken (`choose`).
        limits: `data.filter` of the recipe.
        seed: decides chance.
        with_ids, with_weights: whether batches have ids and weights.
    """

    modalities: Mapping[str, tuple[Modality, Any]]
    choices: Sequence[str]
    limits: Mapping[str, Any]
    seed: int
    with_ids: bool
    with_weights: bool

    def prepare(self, key: Key, sample: Sample, *, number: int, variant: int = 0) -> Prepared:
        """Return a sample, ready to be collated.

        Args:
            key: its row, which decides what is random in it.
            sample: what its data set gave.
            number: its number in the data set; it is its id where it has none.
            variant: which of several inputs is taken with `choose: all`.

        Raises:
            InputError, SampleError: it cannot be used.
        """
        if not (math.isfinite(sample.weight) and sample.weight >= 0):
            raise SampleError(f"its weight is {describe(sample.weight)}; expected a number from 0")
        inputs: dict[str, Any] = {}
        for name, (handler, processor) in self.modalities.items():
            raws = sample.inputs.get(name)
            if not raws or isinstance(raws, str | bytes):
                raise SampleError(f"has no {name}; it has {', '.join(sample.inputs) or 'nothing'}")
            raw = raws[self._chosen(key, name, len(raws), variant)]
            handler.check_raw(raw, self.limits)
            generator = torch.Generator().manual_seed(seed_of(self.seed, *key, name))
            inputs[name] = handler.prepare_one(processor, raw, generator=generator)
        identity = seed_of(0, key.dataset, number) if sample.id is None else seed_of(0, key.dataset, sample.id)
        return Prepared(key, inputs, identity, float(sample.weight))

    def _chosen(self, key: Key, name: str, count: int, variant: int) -> int:
        choice = self.choices[key.dataset]
        if count == 1 or choice == "first":
            return 0
        return variant % count if choice == "all" else seed_of(self.seed, *key, name, "choice") % count

    def collate(self, step: int, samples: Sequence[Prepared], bad: list[BadSample]) -> Batch:
        """Return samples as a batch."""
        inputs = {
            name: handler.collate(processor, [sample.inputs[name] for sample in samples])
            for name, (handler, processor) in self.modalities.items()
        }
        ids = torch.tensor([sample.id for sample in samples]) if self.with_ids else None
        weights = (
            torch.tensor([sample.weight for sample in samples], dtype=torch.float32) if self.with_weights else None
        )
        return Batch(step, inputs, ids, weights, [sample.key for sample in samples], bad)

    def check_source(self, source: SampleSource, sample: Sample) -> None:
        """Hold a sample to what its data set says of all of them.

        Raises:
            PluginError: it has an id or a weight, and batches have none because the data set does not say so.
        """
        maker = maker_of(type(source))
        if sample.id is not None and not self.with_ids:
            raise PluginError(f"{maker}: a sample has the id {describe(sample.id)}, but has_ids is False")
        if sample.weight != 1 and math.isfinite(sample.weight) and not self.with_weights:
            raise PluginError(f"{maker}: a sample has the weight {describe(sample.weight)}, but has_weights is False")


class BatchReader(torch.utils.data.Dataset[Batch]):
    """Reads the batch of a step, as far as it is one process's.

    Args:
        datasets: those of the mixture.
        order: which rows each step takes.
        edges: for each data set, where the rows of each sample begin, and their number; None where each has one row.
        preparer: makes what models take of samples.
        rank: which process this is.
        count: how many there are.
    """

    def __init__(
        self,
        datasets: Sequence[Dataset],
        order: Order,
        edges: Sequence[Integers | None],
        preparer: SamplePreparer,
        *,
        rank: int,
        count: int,
    ) -> None:
        self._datasets, self._order, self._edges, self._preparer = datasets, order, edges, preparer
        share = order.batch // count
        self._first, self._last = rank * share, (rank + 1) * share

    def __getitems__(self, step: int) -> Batch | BaseException:
        """Return the batch of a step; an error is returned, since one that a worker raises loses its form."""
        try:
            return self.batch(step)
        except Exception as error:
            return error

    def batch(self, step: int) -> Batch:
        """Return the batch of a step.

        Raises:
            DataError: too many samples in a row cannot be used.
            PluginError: a data set or a processor failed.
        """
        bad: list[BadSample] = []
        rows = self._order.rows(step, self._first, self._last)
        samples = [self._usable(key, step, bad) for key in rows]
        return self._preparer.collate(step, samples, bad)

    def read(self, key: Key) -> Prepared:
        """Return the sample of a row.

        Raises:
            InputError, SampleError: it cannot be used.
            PluginError: its data set failed.
        """
        dataset, edges = self._datasets[key.dataset], self._edges[key.dataset]
        number, variant = key.row, 0
        if edges is not None:
            number = int(np.searchsorted(edges, key.row, side="right")) - 1
            variant = key.row - int(edges[number])
        sample = read_sample(dataset, number)
        self._preparer.check_source(dataset, sample)
        return self._preparer.prepare(key, sample, number=number, variant=variant)

    def location(self, key: Key) -> str:
        """Return where the sample of a row stands."""
        edges = self._edges[key.dataset]
        number = key.row if edges is None else int(np.searchsorted(edges, key.row, side="right")) - 1
        return self._datasets[key.dataset].location(number)

    def _usable(self, key: Key, step: int, bad: list[BadSample]) -> Prepared:
        """Return the sample of a row, or of one that the row decides where it is bad."""
        candidate = key
        for attempt in range(MAX_ATTEMPTS):
            try:
                return self.read(candidate)
            except (InputError, SampleError) as error:
                location = self.location(candidate)
                bad.append(BadSample(candidate, location, str(error).removeprefix(f"{location}: ")))
            candidate = self._other(key, attempt, step)
        last = bad[-1]
        raise DataError(
            f"{MAX_ATTEMPTS} samples in a row cannot be used; the last of them: {last.location}: {last.reason}"
        )

    def _other(self, key: Key, attempt: int, step: int) -> Key:
        """Return a row in place of a bad one, if possible none that the batch of all processes has already."""
        size, taken = self._order.sizes[key.dataset], set(self._order.rows(step))
        candidate = key
        for number in range(10):
            row = seed_of(self._preparer.seed, *key, "replacement", attempt, number) % size
            candidate = key._replace(row=row)
            if candidate not in taken:
                break
        return candidate


def read_sample(dataset: Dataset, number: int) -> Sample:
    """Return a sample of a data set.

    Raises:
        PluginError: the data set raised what it must not, or gave no sample.
    """
    try:
        sample = cast("object", dataset[number])
    except Exception as error:
        if passes(error):
            raise
        raise PluginError(f"{maker_of(type(dataset))}: sample {number} failed: {reason(error)}") from error
    if not isinstance(sample, Sample):
        raise PluginError(f"{maker_of(type(dataset))}: must give a Sample, found {describe(sample)}")
    return sample
