"""Samples of a data set, read and encoded by all processes of a run together.

Process r takes the samples r, r + count, r + 2 * count and so on. Each encodes as many batches of as many samples as
the first does, blank ones at the end, since towers whose weights are sharded compute only where all processes do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor

from zoo_core.errors import DataError, InputError, SampleError, reason
from zoo_core.registry import default_registry
from zoo_core.training import Dataset, Sample

if TYPE_CHECKING:
    from zoo_core.config import DatasetConfig
    from zoo_core.models.dual_encoder import DualEncoder

__all__ = ["Share", "gather", "open_dataset", "spread"]

T = TypeVar("T")

THREADS = 4
"""Images that are decoded at a time."""
BLANK = 16
"""Height and width of a blank image."""


def open_dataset(config: DatasetConfig) -> Dataset:
    """Return the data set of a config.

    Raises:
        DataError: it cannot be used, is empty, or is a stream.
        PluginError: it fails.
    """
    source = default_registry().get("dataset", config.component).build(config)
    if not isinstance(source, Dataset):
        raise DataError(f"data set '{config.component}' is a stream; an evaluator takes one with an index")
    if not len(source):
        raise DataError(f"data set '{config.component}' has no samples")
    return source


def spread(size: int, samples: int | None) -> Sequence[int]:
    """Return so many rows, spread evenly over `size`; all where there are fewer."""
    if samples is None or samples >= size:
        return range(size)
    return [place * size // samples for place in range(samples)]


def gather(value: T, count: int) -> list[T]:
    """Return what each process calls this with, in order of rank."""
    if count == 1:
        return [value]
    values: list[T | None] = [None] * count
    torch.distributed.all_gather_object(values, value)
    return cast("list[T]", values)


@dataclass
class Share:
    """What one process reads of a data set.

    Attributes:
        rows: all rows that are measured.
        rank: which process this is.
        count: how many there are.
        batch: samples that are encoded at a time.
        problems: samples that cannot be used, and why.
    """

    dataset: Dataset
    rows: Sequence[int]
    rank: int
    count: int
    batch: int
    problems: list[str] = field(default_factory=list[str])

    def encode_images(self, model: DualEncoder, read: Callable[[int, Sample], Any]) -> Tensor:
        """Return unit-norm features of the images `[n, D]`, float32 on the CPU, of those samples that can be used.

        Args:
            model: in evaluation mode.
            read: called with the row and the sample of each, in order; a `DataError` in it counts as one of the sample.
        """
        handler = model.modalities["image"]
        processor = handler.processor(model)
        blank = handler.prepare_one(processor, _blank())
        features: list[Tensor] = []

        def prepared(raw: Any) -> Any:
            try:
                return handler.prepare_one(processor, raw)
            except InputError as error:
                return error

        with ThreadPoolExecutor(THREADS, thread_name_prefix="zoo-evaluate") as pool:
            rows = iter(self.rows[self.rank :: self.count])
            for _ in range(-(-len(self.rows) // (self.count * self.batch))):
                samples = list(self._samples(islice(rows, self.batch)))
                images = list(pool.map(prepared, (sample.inputs["image"][0] for _, sample in samples)))
                usable = [self._accept(*pair, read) for pair in zip(samples, images, strict=True)]
                images = [image for image, is_usable in zip(images, usable, strict=True) if is_usable]
                padded = [*images, *[blank] * (self.batch - len(images) if self.count > 1 or not images else 0)]
                encoded = model.encode("image", handler.collate(processor, padded), normalize=True)
                features.append(encoded[: len(images)].float().cpu())
        return torch.cat(features)

    def encode_texts(self, model: DualEncoder, texts: Sequence[str]) -> Tensor:
        """Return unit-norm features `[M, D]` of texts that all processes have, each encoding its share of them."""
        rounds = -(-len(texts) // (self.count * self.batch))
        portion = list(texts[self.rank :: self.count])
        padded = [*portion, *[texts[0]] * (rounds * self.batch - len(portion) if self.count > 1 else 0)]
        encoded = [
            model.encode_text(padded[start : start + self.batch], normalize=True).float().cpu()
            for start in range(0, len(padded), self.batch)
        ]
        shares = gather(torch.cat(encoded)[: len(portion)], self.count)
        return interleaved(shares)

    def check(self) -> None:
        """Raise in all processes where a sample of any cannot be used.

        Raises:
            DataError: there is one; the first is named, and all are counted.
        """
        problems = [problem for share in gather(self.problems, self.count) for problem in share]
        if problems:
            more = f"; so {len(problems):,} of {len(self.rows):,} samples" if len(problems) > 1 else ""
            raise DataError(f"{problems[0]}{more}")

    def _samples(self, rows: Iterator[int]) -> Iterator[tuple[int, Sample]]:
        for row in rows:
            try:
                sample = self.dataset[row]
                if not sample.inputs.get("image"):
                    raise SampleError(f"has no image; it has {', '.join(sample.inputs) or 'nothing'}")
            except DataError as error:
                self._refuse(row, error)
            else:
                yield row, sample

    def _accept(self, sample: tuple[int, Sample], image: Any, read: Callable[[int, Sample], Any]) -> bool:
        row, content = sample
        try:
            if isinstance(image, InputError):
                raise image
            read(row, content)
        except (DataError, InputError) as error:
            self._refuse(row, error)
            return False
        return True

    def _refuse(self, row: int, error: BaseException) -> None:
        location, why = self.dataset.location(row), reason(error)
        self.problems.append(why if location in why else f"{location}: {why}")


def interleaved(shares: Sequence[Tensor]) -> Tensor:
    """Return rows of shares in the order from which process r took r, r + count and so on."""
    whole = shares[0].new_empty((sum(map(len, shares)), *shares[0].shape[1:]))
    for rank, share in enumerate(shares):
        whole[rank :: len(shares)] = share
    return whole


def _blank() -> Any:
    from PIL import Image

    return Image.new("RGB", (BLANK, BLANK))
