"""Data sets in memory, as a plugin brings them, and a model that takes them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from PIL import Image

from zoo.catalog.architectures import load_config
from zoo.training.data.open import TrainingData, open_data
from zoo.training.recipe.sections import Data
from zoo_core.config import DatasetConfig
from zoo_core.errors import SampleError
from zoo_core.plugin import ComponentSpec
from zoo_core.registry import Registry, default_registry
from zoo_core.registry.component import Plugin
from zoo_core.training import Dataset, Sample, Stream


class MadeConfig(DatasetConfig):
    """Small images of one colour, with captions that name their number."""

    type: str = "made"
    size: int = 40
    captions: int = 1
    bad: list[int] = []
    broken: str = ""
    ids: bool = False
    sample_weights: bool = False
    block: int | None = None


class Made(Dataset):
    def __init__(self, config: MadeConfig) -> None:
        self.config = config
        self.has_ids, self.has_weights = config.ids, config.sample_weights

    def __len__(self) -> int:
        return self.config.size

    def __getitem__(self, index: int) -> Sample:
        if index in self.config.bad:
            raise SampleError(f"made:{index}: it is bad")
        if self.config.broken == "error":
            raise ZeroDivisionError("it divides")
        captions = [f"number {index} in words {variant}" for variant in range(self.config.captions)]
        inputs: dict[str, Any] = {"image": [png(index)], "text": captions}
        if self.config.broken == "no text":
            del inputs["text"]
        return Sample(
            inputs,
            id=str(index // 2) if self.config.ids or self.config.broken == "ids" else None,
            weight=float("nan") if self.config.broken == "nan" else 1 + index * self.config.sample_weights,
        )

    def location(self, index: int) -> str:
        return f"made:{index}"

    def variants(self) -> list[int] | None:
        return [self.config.captions] * self.config.size if self.config.captions > 1 else None

    def blocks(self) -> list[int] | None:
        block = self.config.block
        return (
            None if block is None else [min(block, self.config.size - at) for at in range(0, self.config.size, block)]
        )

    def digest(self) -> str:
        return self.config.model_dump_json()


class FlowConfig(DatasetConfig):
    """The same as a stream."""

    resume: ClassVar[Literal["exact", "approximate"]] = "approximate"
    type: str = "flow"
    size: int = 40


class Flow(Stream):
    def __init__(self, config: FlowConfig) -> None:
        self.made = Made(MadeConfig(size=config.size))

    def samples(self, *, seed: int, rank: int, count: int) -> Iterator[Sample]:
        for index in range(rank, len(self.made), count):
            yield self.made[(index + seed) % len(self.made)]

    def digest(self) -> str:
        return "flow"


@cache
def png(index: int) -> bytes:
    """An image file whose colour is the number of a sample."""
    buffer = io.BytesIO()
    Image.new("RGB", (20 + index % 3, 16), (index % 256, index // 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


@cache
def with_made() -> Registry:
    """The installed plugins, and one with these data sets."""
    specs = tuple(
        ComponentSpec("dataset", name, f"{__name__}:{kind}Config", f"{__name__}:{kind}")
        for name, kind in (("made", "Made"), ("flow", "Flow"))
    )
    return Registry([*default_registry().plugins, Plugin("made", __name__, "acme", "1.0", components=specs)])


@cache
def tiny_model() -> Any:
    """The architecture whose inputs are prepared."""
    return load_config("digits-tiny", ["vision.image_size=8", "preprocess.train.scale=[0.3,1.0]"])


def opened(*train: dict[str, Any], batch: int = 8, seed: int = 3, part: Any = "train", **options: Any) -> TrainingData:
    """Open data sets, those in memory among them."""
    section = Data.parse({"train": list(train), **options}, registry=with_made())
    return open_data(section, model=tiny_model(), batch=batch, seed=seed, part=part, registry=with_made())


def shard(path: Path, samples: dict[str, dict[str, bytes]]) -> Path:
    """Write a tar file of samples: what their members hold, by the ending."""
    with tarfile.open(path, "w") as archive:
        for key, members in samples.items():
            for ending, content in members.items():
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def pairs(count: int, start: int = 0) -> dict[str, dict[str, bytes]]:
    """Samples of an image file and a caption."""
    return {
        f"{index:05}": {"png": png(index), "txt": f"number {index}".encode()} for index in range(start, start + count)
    }
