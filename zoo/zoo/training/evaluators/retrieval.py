"""Retrieval among the pairs of a data set while a model trains."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from zoo.evaluation.retrieval import Retrieval as Direction
from zoo.evaluation.retrieval import retrieval_metrics
from zoo.training.evaluators.config import RetrievalConfig
from zoo.training.evaluators.shares import Share, gather, open_dataset, spread
from zoo_core.errors import DataError, describe
from zoo_core.training import Evaluator, Sample

if TYPE_CHECKING:
    from zoo_core.models.dual_encoder import DualEncoder

__all__ = ["Retrieval"]


class Retrieval(Evaluator):
    """Measures `image_to_text_r1` and so on, `image_to_text_median_rank`, and the same of `text_to_image`.

    Ranks are computed in the first process.

    Raises:
        DataError: the data set cannot be used.
    """

    def __init__(self, config: RetrievalConfig) -> None:
        self.config = config
        self.dataset = open_dataset(config.dataset)

    def evaluate(self, model: DualEncoder, *, rank: int, count: int) -> Mapping[str, float]:
        """Return recall and median rank in both directions; nothing in processes but the first."""
        rows = spread(len(self.dataset), self.config.samples)
        share = Share(self.dataset, rows, rank, count, self.config.batch)
        pairs: list[_Pair] = []
        encoded = share.encode_images(model, lambda row, sample: pairs.append(self._pair(row, sample)))
        share.check()
        features = torch.cat(gather(encoded, count))
        every = [pair for part in gather(pairs, count) for pair in part]
        order = sorted(range(len(every)), key=lambda place: every[place].row)
        images, texts, image_of_text = self._merged([every[place] for place in order])
        text_features = share.encode_texts(model, texts)
        if rank:
            return {}
        features = features[order][images]
        measured = retrieval_metrics(features, text_features, image_of_text, ks=self.config.ks)
        return _named("image_to_text", measured.image_to_text) | _named("text_to_image", measured.text_to_image)

    def _pair(self, row: int, sample: Sample) -> _Pair:
        texts = sample.inputs.get("text")
        if not texts:
            raise DataError(f"has no text; it has {', '.join(sample.inputs)}")
        label = sample.id if self.config.ids else None
        return _Pair(row, list(texts), label, None if label is None else _digest(sample.inputs["image"][0]))

    def _merged(self, pairs: list[_Pair]) -> tuple[list[int], list[str], list[int]]:
        """Return the places of the images, all texts, and the number of the image of each text.

        Raises:
            DataError: samples of one id show different images.
        """
        images: list[int] = []
        texts: list[str] = []
        image_of_text: list[int] = []
        first: dict[str, tuple[int, _Pair]] = {}
        for place, pair in enumerate(pairs):
            number = len(images)
            if pair.id is not None:
                number, earlier = first.setdefault(pair.id, (number, pair))
                if earlier.image != pair.image:
                    locations = " and ".join(self.dataset.location(one.row) for one in (earlier, pair))
                    raise DataError(
                        f"{locations} have the id {describe(pair.id)} and different images; with ids: false each "
                        "sample is an image of its own"
                    )
            if number == len(images):
                images.append(place)
            texts += pair.texts
            image_of_text += [number] * len(pair.texts)
        return images, texts, image_of_text


class _Pair:
    """The texts of a sample, and of one with an id a digest of its image."""

    def __init__(self, row: int, texts: list[str], label: str | None, image: str | None) -> None:
        self.row, self.texts, self.id, self.image = row, texts, label, image


def _digest(image: Any) -> str:
    if isinstance(image, str | Path):
        return str(image)
    content = image if isinstance(image, bytes) else cast("bytes", image.tobytes())
    return hashlib.sha256(content).hexdigest()


def _named(direction: str, measured: Direction) -> dict[str, float]:
    recall = {f"{direction}_r{k}": value for k, value in measured.recall.items()}
    return recall | {f"{direction}_median_rank": measured.median_rank}
