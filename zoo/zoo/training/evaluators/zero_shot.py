"""Zero-shot classification while a model trains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.embeddings.image_folders import EXTENSIONS
from zoo.evaluation.labels import Labels, parse_labels
from zoo.evaluation.zero_shot import ZeroShotClassifier
from zoo.training.evaluators.config import ZeroShotConfig
from zoo.training.evaluators.shares import Share, gather, open_dataset, spread
from zoo_core.errors import DataError, describe, did_you_mean
from zoo_core.training import Dataset, Evaluator, Sample

if TYPE_CHECKING:
    from zoo_core.models.dual_encoder import DualEncoder

__all__ = ["ZeroShot"]


class ZeroShot(Evaluator):
    """Measures `top1`, `top5` (of more than five classes) and `mean_per_class`, the mean of the classes' own `top1`.

    Raises:
        DataError: the images cannot be used.
    """

    def __init__(self, config: ZeroShotConfig) -> None:
        self.config = config
        folder, dataset = config.folder, config.dataset
        self.dataset = _ClassFolders(Path(folder or "")) if dataset is None else open_dataset(dataset)
        classes = config.classes
        self.classes: Labels | None = parse_labels(classes) if isinstance(classes, str) else classes

    def evaluate(self, model: DualEncoder, *, rank: int, count: int) -> Mapping[str, float]:
        """Return the shares of images whose class is the nearest of all, or among the five nearest."""
        rows = spread(len(self.dataset), self.config.samples)
        share = Share(self.dataset, rows, rank, count, self.config.batch)
        allowed = None if self.classes is None else set(map(str, self.classes))
        labels: list[str] = []

        def read(row: int, sample: Sample) -> None:
            label = self._label(sample)
            if allowed is not None and label not in allowed:
                raise DataError(f"its class {describe(label)} is none of classes{did_you_mean(label, allowed)}")
            labels.append(label)

        features = share.encode_images(model, read)  # [n, D]
        share.check()
        classes = self.classes or sorted({label for part in gather(labels, count) for label in part})
        classifier = ZeroShotClassifier(model, classes, self.config.templates)
        number = {label: place for place, label in enumerate(classifier.labels)}
        targets = torch.tensor([number[label] for label in labels], dtype=torch.int64)
        return _measured(features @ classifier.class_features.float().cpu().T, targets, count)

    def _label(self, sample: Sample) -> str:
        if self.config.dataset is None or self.config.label == "id":
            if sample.id is None:
                raise DataError("has no id, which label: id asks for")
            return sample.id
        texts = sample.inputs.get("text")
        if not texts:
            raise DataError("has no text, which label: text asks for")
        return texts[0]


def _measured(cosines: Tensor, targets: Tensor, count: int) -> dict[str, float]:
    """Return the metrics of the images of all processes; `cosines` `[n, C]` and `targets` `[n]` are of this one."""
    classes = cosines.shape[1]
    nearest = cosines.topk(min(5, classes), dim=1).indices == targets[:, None]  # [n, 5]
    hits = torch.stack([nearest[:, 0], nearest.any(dim=1), torch.ones(len(targets), dtype=torch.bool)], dim=1)
    sums = torch.zeros(classes, 3, dtype=torch.float64).index_add_(0, targets, hits.double())
    total = torch.stack(gather(sums, count)).sum(dim=0)  # [C, 3]
    first, five, images = total.unbind(dim=1)
    metrics = {"top1": first.sum() / images.sum()}
    if classes > 5:
        metrics["top5"] = five.sum() / images.sum()
    seen = images > 0
    metrics["mean_per_class"] = (first[seen] / images[seen]).mean()
    return {name: float(value) for name, value in metrics.items()}


class _ClassFolders(Dataset):
    """Images in folders that are called as their classes.

    Raises:
        DataError: the folder holds no images in folders.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = [path for kind in _entries(folder) if kind.is_dir() for path in _images(kind)]
        if not self._files:
            raise DataError(f"{folder} holds no images in folders that are called as their classes")

    def digest(self) -> str:
        """Return the number of images: no run resumes by it."""
        return str(len(self))

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        path = self._files[index]
        return Sample({"image": [path]}, id=path.relative_to(self.folder).parts[0])

    def location(self, index: int) -> str:
        """Return the path of an image."""
        return str(self._files[index])


def _images(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)


def _entries(folder: Path) -> Sequence[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror or error}") from error
