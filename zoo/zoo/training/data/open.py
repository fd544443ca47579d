"""Opening and checks of the data of a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from zoo.building.assemble import processor_of
from zoo.training.data.order import Integers, Key, Order
from zoo.training.data.prepare import BatchReader, SamplePreparer
from zoo.training.data.stream import StreamReader
from zoo_core.boundary.plugin_code import maker_of
from zoo_core.errors import DataError, InputError, PluginError, SampleError
from zoo_core.models.towers import modalities_of
from zoo_core.registry import Registry, default_registry
from zoo_core.training import Dataset, SampleSource, Stream

if TYPE_CHECKING:
    from zoo.training.recipe.sections import Data
    from zoo_core.config import DatasetConfig, ModelConfig
    from zoo_core.models.modality import Modality

__all__ = ["Part", "TrainingData", "open_data", "open_source"]

Part = Literal["train", "validation"]

TRIED = 16
"""First samples of a data set of which one has to be usable."""


@dataclass(frozen=True)
class TrainingData:
    """Data that is open and checked.

    Attributes:
        part: the key of the recipe.
        sources: the data sets of the mixture: all with an index, or all streams.
        order: which rows each step takes; None for streams.
        batch: rows of a step, over all processes.
        seed: decides order and augmentation.
        resume: how a run over it goes on.
    """

    part: Part
    sources: Sequence[SampleSource]
    order: Order | None
    batch: int
    seed: int
    resume: Literal["exact", "approximate"]
    weights: Sequence[float]
    edges: Sequence[Integers | None]
    preparer: SamplePreparer

    @property
    def rows(self) -> int | None:
        """Number of rows of all data sets; None for streams."""
        return None if self.order is None else sum(self.order.sizes)

    @property
    def steps_per_epoch(self) -> int | None:
        """Number of steps of a pass over the first data set; None for streams."""
        return None if self.order is None else self.order.steps_per_epoch

    def digest(self) -> dict[str, str]:
        """Return for each data set a text that changes with what it gives."""
        return {f"{self.part}[{index}]": source.digest() for index, source in enumerate(self.sources)}

    def reader(self, *, rank: int = 0, count: int = 1, start: int = 0) -> BatchReader | StreamReader:
        """Return what reads the batches of one process."""
        if self.order is None:
            streams = cast("Sequence[Stream]", self.sources)
            shape = {"batch": self.batch, "rank": rank, "count": count, "start": start}
            return StreamReader(streams, self.weights, self.preparer, **shape)
        datasets = cast("Sequence[Dataset]", self.sources)
        return BatchReader(datasets, self.order, self.edges, self.preparer, rank=rank, count=count)


def open_data(
    data: Data,
    *,
    model: ModelConfig,
    batch: int,
    seed: int = 0,
    part: Part = "train",
    registry: Registry | None = None,
    try_samples: bool = True,
) -> TrainingData:
    """Open the data sets of a recipe and check them.

    Args:
        data: the section of the recipe.
        model: the architecture whose inputs are prepared.
        batch: samples of a step, over all processes; with `validation` less where there are less.
        seed: decides order and augmentation.
        part: `train`, or `validation`, whose samples come as they lie, without augmentation.
        registry: where components are looked up; the installed plugins where None.
        try_samples: prepare samples of each data set, so that what is wrong with all of them is an error now.

    Raises:
        DataError: the data cannot be used: files are missing or damaged, captions are missing, or there is no step.
        PluginError: a data set fails.
    """
    registry = registry or default_registry()
    is_training = part == "train"
    configs = cast("Sequence[DatasetConfig]", data.train if is_training else data.validation or [])
    if not configs:
        raise DataError(f"data.{part} names no data set")
    sources = [open_source(config, registry) for config in configs]
    edges = [_edges(source, config) for source, config in zip(sources, configs, strict=True)]
    sizes = [_size(source, rows) for source, rows in zip(sources, edges, strict=True)]
    batch = batch if is_training or isinstance(sources[0], Stream) else max(1, min(batch, sum(sizes)))
    weights = [config.weight for config in configs] if is_training else [max(1.0, float(size)) for size in sizes]
    order = None
    if not isinstance(sources[0], Stream):
        order = Order(
            sizes,
            weights,
            batch=batch,
            seed=seed,
            shuffle=data.shuffle if is_training else "none",
            blocks=[_blocks(source, rows) for source, rows in zip(sources, edges, strict=True)],
            window_blocks=data.window_blocks,
        )
    preparer = SamplePreparer(
        modalities=_modalities(model, registry, train=is_training and data.augment),
        choices=[config.choose if is_training or config.choose == "all" else "first" for config in configs],
        limits=data.filter.model_dump(),
        seed=seed,
        with_ids=len(sources) > 1 or any(source.has_ids for source in sources) or any(e is not None for e in edges),
        with_weights=any(source.has_weights for source in sources),
    )
    opened = TrainingData(part, sources, order, batch, seed, configs[0].resume, weights, edges, preparer)
    if try_samples:
        _check_first_samples(opened)
    return opened


def open_source(config: DatasetConfig, registry: Registry) -> SampleSource:
    """Return the data set of a config.

    Raises:
        DataError: it cannot be used.
        PluginError: it is none, or its factory fails.
    """
    component = registry.get("dataset", config.component)
    source = component.build(config)
    base = Dataset if config.resume == "exact" else Stream
    if not isinstance(source, base):
        raise PluginError(f"{component}: its factory must give a {base.__name__}, found {type(source).__name__}")
    return source


def _modalities(model: ModelConfig, registry: Registry, *, train: bool) -> Mapping[str, tuple[Modality, Any]]:
    handlers = modalities_of(registry, model.towers)
    return {name: (handler, processor_of(model, name, train)) for name, handler in handlers.items()}


def _edges(source: SampleSource, config: DatasetConfig) -> Integers | None:
    """Return where the rows of each sample begin, and their number; None where each sample is one row."""
    variants = source.variants() if config.choose == "all" and isinstance(source, Dataset) else None
    return None if variants is None else np.concatenate([[0], np.cumsum(np.asarray(variants, np.int64))])


def _size(source: SampleSource, edges: Integers | None) -> int:
    if not isinstance(source, Dataset):
        return 0
    return len(source) if edges is None else int(edges[-1])


def _blocks(source: SampleSource, edges: Integers | None) -> Sequence[int] | None:
    """Return how many rows lie together, block after block."""
    blocks = source.blocks() if isinstance(source, Dataset) else None
    if blocks is None:
        return None
    ends = np.cumsum(np.asarray(blocks, np.int64))
    if not isinstance(source, Dataset) or not len(ends) or int(ends[-1]) != len(source):
        raise PluginError(f"{maker_of(type(source))}: blocks must add up to the number of its samples")
    ends = ends if edges is None else edges[ends]
    return np.diff(ends, prepend=0).tolist()


def _check_first_samples(data: TrainingData) -> None:
    """Prepare a sample of each data set, so that what is wrong with all of them is found now.

    Raises:
        DataError: none of the first samples can be used.
    """
    if data.order is None:
        return
    reader = cast("BatchReader", data.reader())
    for index, size in enumerate(data.order.sizes):
        first: str | None = None
        for row in range(min(size, TRIED)):
            key = Key(index, 0, row)
            try:
                sample = reader.read(key)
            except (InputError, SampleError) as error:
                location = reader.location(key)
                first = first or f"{location}: {str(error).removeprefix(f'{location}: ')}"
            else:
                data.preparer.collate(0, [sample], [])
                break
        else:
            count = min(size, TRIED)
            raise DataError(f"data.{data.part}[{index}]: none of the first {count} samples can be used; {first}")
