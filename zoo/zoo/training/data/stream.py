"""Batches of streams, whose samples come in an order of their own.

Each worker of each process is a reader. A run that goes on reads the streams anew, with another seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from torch.utils.data import IterableDataset, get_worker_info

from zoo.training.data.batch import BadSample, Batch
from zoo.training.data.order import Key, seed_of
from zoo.training.data.prepare import MAX_ATTEMPTS, Prepared, SamplePreparer
from zoo_core.boundary.plugin_code import maker_of, passes
from zoo_core.errors import DataError, InputError, PluginError, SampleError, reason
from zoo_core.training import Sample, Stream

__all__ = ["StreamReader"]


class StreamReader(IterableDataset[Batch | BaseException]):
    """Reads the batches of one process from streams, without end.

    Args:
        streams: those of the mixture.
        weights: their shares of the rows.
        preparer: makes what models take of samples.
        batch: rows of a step, over all processes.
        rank: which process this is.
        count: how many there are.
        start: the step at which the run begins, or goes on.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        weights: Sequence[float],
        preparer: SamplePreparer,
        *,
        batch: int,
        rank: int,
        count: int,
        start: int,
    ) -> None:
        self._streams, self._weights, self._preparer = streams, weights, preparer
        self._share, self._rank, self._count, self._start = batch // count, rank, count, start

    def __iter__(self) -> Iterator[Batch | BaseException]:
        """Yield batches; an error is yielded, since one that a worker raises loses its form."""
        try:
            yield from self._batches()
        except Exception as error:
            yield error

    def _batches(self) -> Iterator[Batch]:
        worker = get_worker_info()
        workers, number = (1, 0) if worker is None else (worker.num_workers, worker.id)
        reader, readers = self._rank * workers + number, self._count * workers
        sources = [self._samples(index, reader, readers) for index in range(len(self._streams))]
        chance = random.Random(seed_of(self._preparer.seed, self._start, reader))
        while True:
            bad: list[BadSample] = []
            chosen = chance.choices(range(len(sources)), self._weights, k=self._share)
            samples = [self._usable(index, sources[index], bad) for index in chosen]
            yield self._preparer.collate(0, samples, bad)

    def _samples(self, index: int, reader: int, readers: int) -> Iterator[tuple[Key, int, Sample]]:
        """Yield the samples of a stream again and again."""
        stream, epoch = self._streams[index], 0
        while True:
            key = None
            seed = seed_of(self._preparer.seed, self._start, index, epoch)
            try:
                for row, sample in enumerate(stream.samples(seed=seed, rank=reader, count=readers)):
                    key = Key(index, epoch, row)
                    yield key, seed_of(reader, *key), sample
            except Exception as error:
                if passes(error):
                    raise
                raise PluginError(f"{maker_of(type(stream))}: samples failed: {reason(error)}") from error
            if key is None:
                raise DataError(
                    f"data set {index} gives no sample to reader {reader} of {readers}; fewer workers, or more shards"
                )
            epoch += 1

    def _usable(self, index: int, source: Iterator[tuple[Key, int, Sample]], bad: list[BadSample]) -> Prepared:
        for _ in range(MAX_ATTEMPTS):
            key, number, sample = next(source)
            try:
                self._preparer.check_source(self._streams[index], sample)
                return self._preparer.prepare(key, sample, number=number)
            except (InputError, SampleError) as error:
                bad.append(BadSample(key, f"data set {index}, sample {key.row} of its reader", str(error)))
        last = bad[-1]
        raise DataError(f"{MAX_ATTEMPTS} samples in a row cannot be used; the last of them: {last.reason}")
