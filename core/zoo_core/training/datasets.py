"""Interfaces of data sets: samples by index, or in a stream.

An indexed data set gives sample `i` whenever it is asked for it, in any process. The order of training is then a pure
function of seed and step, and a run that was killed goes on exactly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo_core.boundary import Contract

__all__ = ["Dataset", "Sample", "SampleSource", "Stream"]


@dataclass(frozen=True)
class Sample:
    """Raw inputs that belong together, such as an image and its captions.

    Attributes:
        inputs: for each modality one raw input or several that say the same: `{"image": [path], "text": ["a cat",
            "a pet"]}`. An image is the path or the content (bytes) of a file, a PIL image or a uint8 array `[H, W, 3]`.
        id: samples of one id are positives of each other; None where each is its own.
        weight: factor of its part of the loss.
    """

    inputs: Mapping[str, Sequence[Any]]
    id: str | None = None
    weight: float = 1.0


class SampleSource(Contract, ABC):
    """What data sets of both forms share. It is handed to workers, so it must survive pickling.

    Attributes:
        has_ids: whether samples have ids; where they have none, each is its own.
        has_weights: whether samples have weights.
    """

    has_ids: bool = False
    has_weights: bool = False

    @abstractmethod
    def digest(self) -> str:
        """Return a short text that changes with what the data set gives, such as a hash of names and sizes."""


class Dataset(SampleSource):
    """Samples by index: the same sample for the same index, in every process.

    Built by a factory `(config) -> Dataset`, with a config that derives from `zoo_core.config.DatasetConfig`.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples, without reading them."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Return a sample.

        Raises:
            SampleError: it cannot be used; the message names the file, or the row, and the reason.
        """

    def location(self, index: int) -> str:
        """Return where a sample stands, for messages: a file, or a file and a row."""
        return f"sample {index}"

    def variants(self) -> Sequence[int] | None:
        """Return how many inputs each sample has of that modality of which it has most; None where each has one.

        With `choose: all` each of them is a row of its own.
        """
        return None

    def blocks(self) -> Sequence[int] | None:
        """Return how many samples lie together on the disk, block after block; None where all are as near.

        With `shuffle: window` the samples of a few blocks, such as shards, are mixed at a time.
        """
        return None


class Stream(SampleSource):
    """Samples in the order in which they come, where none can be had by its index.

    Built by a factory as a `Dataset` is. A run over it resumes approximately: some samples may come again, others not.
    """

    @abstractmethod
    def samples(self, *, seed: int, rank: int, count: int) -> Iterable[Sample]:
        """Yield samples for ever, or until they end.

        One that lacks something is yielded without it, and counts as bad.

        Args:
            seed: decides the order, where there is a choice; it differs after each resume.
            rank: which reader this is: each process and each of its workers is one.
            count: how many readers there are; together they read each sample once.

        Raises:
            DataError: the stream cannot be read.
        """
