"""Reports on data: faults, duplicates, lengths and rates."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from zoo.training.data.loader import begin_worker, quiet_workers, worker_deaths
from zoo.training.data.open import TrainingData
from zoo.training.data.order import Key
from zoo.training.data.prepare import SamplePreparer, read_sample
from zoo_core.errors import InputError, SampleError
from zoo_core.text.tokenizer import Tokenizer
from zoo_core.training import Dataset, Sample, Stream

__all__ = ["SourceReport", "report_on"]

AT_ONCE = 64
"""Samples that a worker looks at between two reports."""


@dataclass
class SourceReport:
    """What was found in one data set.

    Attributes:
        samples: its number of samples; None for a stream.
        read: how many were looked at.
        bad: where the bad ones stand, and what is wrong with them.
        duplicates: pairs of samples whose inputs of some modality are the same, where the second one stands first.
        ids: different ids; None where samples have none.
        tokens: lengths in tokens of all texts, special tokens included.
        cut: how many of them are longer than the model takes.
        seconds: time that preparing the samples took, of one core.
    """

    samples: int | None
    read: int = 0
    bad: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    duplicates: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    ids: int | None = None
    tokens: list[int] = field(default_factory=list[int])
    cut: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        lengths = np.asarray(self.tokens)
        quantiles = dict(zip(("median", "95%", "longest"), np.percentile(lengths, (50, 95, 100)).tolist(), strict=True))
        return {
            "samples": self.samples,
            "read": self.read,
            "bad": [{"location": location, "reason": why} for location, why in self.bad],
            "duplicates": [{"location": second, "of": first} for second, first in self.duplicates],
            "ids": self.ids,
            "tokens": quantiles if len(lengths) else None,
            "cut": self.cut / len(lengths) if len(lengths) else None,
            "samples_per_second": (self.read - len(self.bad)) / self.seconds if self.seconds else None,
        }


@dataclass(frozen=True)
class _Look:
    """What was found in one sample."""

    location: str
    fault: str | None
    contents: Sequence[bytes] = ()
    id: str | None = None
    tokens: Sequence[int] = ()
    cut: int = 0
    seconds: float = 0.0


def report_on(
    data: TrainingData,
    index: int,
    *,
    limit: int | None = None,
    workers: int = 0,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> SourceReport:
    """Read samples of a data set and report on them.

    Args:
        data: data sets that are open.
        index: which of them.
        limit: how many samples at most, evenly spaced; all where None.
        workers: processes that read.
        advance: told after each few samples how many are done, of how many.

    Raises:
        DataError: a stream cannot be read.
        PluginError: the data set fails.
    """
    source = data.sources[index]
    examiner = _Examiner(data.preparer, index)
    if isinstance(source, Dataset):
        count = len(source)
        numbers: list[int] = np.linspace(0, count - 1, min(limit or count, count), dtype=int).tolist()
        report, total = SourceReport(count), len(numbers)
        looks = _looks(source, examiner, numbers, workers)
    else:
        assert isinstance(source, Stream)
        report, total = SourceReport(None), limit or 0
        samples = islice(source.samples(seed=0, rank=0, count=1), limit)
        looks = (
            examiner.look(f"sample {number}", number, lambda sample=sample: sample)
            for number, sample in enumerate(samples)
        )
    ids: Counter[str] = Counter()
    first: dict[bytes, str] = {}
    for look in looks:
        _add(report, look, ids, first)
        if report.read % AT_ONCE == 0:
            advance(report.read, total)
    report.ids = len(ids) if source.has_ids else None
    return report


def _add(report: SourceReport, look: _Look, ids: Counter[str], first: dict[bytes, str]) -> None:
    report.read += 1
    report.seconds += look.seconds
    if look.fault is not None:
        report.bad.append((look.location, look.fault))
        return
    report.tokens += look.tokens
    report.cut += look.cut
    if look.id is not None:
        ids[look.id] += 1
    for content in look.contents:
        if first.setdefault(content, look.location) != look.location:
            report.duplicates.append((look.location, first[content]))


class _Examiner:
    """Looks at samples one by one."""

    def __init__(self, preparer: SamplePreparer, index: int) -> None:
        self._preparer, self._index = preparer, index

    def look(self, location: str, number: int, read: Callable[[], Sample]) -> _Look:
        """Return what is found in a sample that `read` gives."""
        began = time.process_time()
        try:
            sample = read()
            self._preparer.prepare(Key(self._index, 0, number), sample, number=number)
        except (InputError, SampleError) as error:
            return _Look(location, str(error).removeprefix(f"{location}: "))
        seconds = time.process_time() - began
        tokens, cut, contents = list[int](), 0, list[bytes]()
        for name, (handler, processor) in self._preparer.modalities.items():
            raws = sample.inputs[name]
            if isinstance(processor, Tokenizer):
                room = processor.context_length - len(processor.all_special_ids)
                lengths = [len(ids) for ids in processor.encode_all(list(raws))]
                tokens += [length + len(processor.all_special_ids) for length in lengths]
                cut += sum(length > room for length in lengths)
            elif handler.spec.files:
                contents += map(_content_of, raws)
        return _Look(location, None, contents, sample.id, tokens, cut, seconds)


class _Looks(torch.utils.data.Dataset[list[_Look]]):
    """Looks at some samples of a data set at a time."""

    def __init__(self, source: Dataset, examiner: _Examiner) -> None:
        self._source, self._examiner = source, examiner

    def __getitems__(self, numbers: Sequence[int]) -> list[_Look] | Exception:
        """Return what is found in samples; an error is returned, since one that a worker raises loses its form."""
        try:
            source = self._source
            return [
                self._examiner.look(source.location(number), number, lambda number=number: read_sample(source, number))
                for number in numbers
            ]
        except Exception as error:
            return error


def _looks(source: Dataset, examiner: _Examiner, numbers: list[int], workers: int) -> Iterator[_Look]:
    parts = [numbers[start : start + AT_ONCE] for start in range(0, len(numbers), AT_ONCE)]
    with quiet_workers():
        loader: DataLoader[Any] = DataLoader(
            _Looks(source, examiner),
            batch_sampler=parts,
            collate_fn=_unchanged,
            num_workers=workers,
            worker_init_fn=begin_worker,
            generator=torch.Generator().manual_seed(0),
        )
        batches = iter(loader)
    for _ in parts:
        with worker_deaths("while it read a sample"):
            looks = next(batches)
        if isinstance(looks, Exception):
            raise looks
        yield from looks


def _unchanged(looks: Any) -> Any:
    return looks


def _content_of(raw: Any) -> bytes:
    """Return a hash of an input: of what its file holds, where it is one."""
    if isinstance(raw, str | Path):
        with Path(raw).open("rb") as file:
            return hashlib.file_digest(file, "blake2b").digest()[:16]
    data = raw if isinstance(raw, bytes) else np.asarray(raw).tobytes() + str(np.asarray(raw).shape).encode()
    return hashlib.blake2b(data).digest()[:16]
