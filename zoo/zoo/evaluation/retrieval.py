"""Recall of image-text retrieval, in both directions.

Similarities are computed and counted tile by tile, so that memory is that of one tile, however many pairs there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.evaluation.calibration import tensor_of
from zoo_core.boundary import checked
from zoo_core.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["Retrieval", "RetrievalMetrics", "retrieval_metrics"]

NORM_TOLERANCE = 0.02
"""Features in bfloat16 are this far from unit norm at most."""


@dataclass(frozen=True)
class Retrieval:
    """One direction: `recall[k]` is the share of queries with a right answer among their k nearest.

    Ranks are those of the nearest right answers, counted from 1.
    """

    recall: dict[int, float]
    mean_rank: float
    median_rank: float


@dataclass(frozen=True)
class RetrievalMetrics:
    """Both directions."""

    image_to_text: Retrieval
    text_to_image: Retrieval


@checked
def retrieval_metrics(
    image_features: Tensor | NDArray[Any],
    text_features: Tensor | NDArray[Any],
    image_of_text: Sequence[int] | Tensor | NDArray[Any] | None = None,
    *,
    ks: Sequence[int] = (1, 5, 10),
    chunk: int = 1024,
) -> RetrievalMetrics:
    """Measure retrieval among unit-norm features.

    The rank of a query is that of its nearest right answer. Wrong answers that are exactly as near count before it.

    Args:
        image_features: `[N, D]`, a tensor or an array.
        text_features: `[M, D]`, likewise.
        image_of_text: number of the image of each text, `[M]`; text i belongs to image i where None. Images without
            texts are answers, but no queries.
        ks: how many of the nearest may hold the right answer.
        chunk: rows and columns of a tile of similarities.

    Raises:
        InputError: the features do not fit each other or are not of unit norm, or a text belongs to no image.
    """
    import torch

    image_features = tensor_of(image_features, "image_features")
    text_features = tensor_of(text_features, "text_features")
    if image_features.ndim != 2 or text_features.ndim != 2 or image_features.shape[1] != text_features.shape[1]:
        shapes = f"{list(image_features.shape)} and {list(text_features.shape)}"
        raise InputError(f"expected image features [N, D] and text features [M, D], found {shapes}")
    if image_features.device != text_features.device:
        raise InputError(
            f"image features are on {image_features.device}, text features on {text_features.device}; move one of them"
        )
    images, texts = len(image_features), len(text_features)
    if image_of_text is None and images != texts:
        raise InputError(f"found {images} images and {texts} texts; say with image_of_text whose the texts are")
    owner = torch.arange(texts) if image_of_text is None else tensor_of(image_of_text, "image_of_text")
    owner = owner.to(image_features.device)
    if owner.shape != (texts,) or owner.is_floating_point():
        raise InputError(f"image_of_text: expected an image's number for each of {texts} texts, found {owner.shape}")
    if not texts or int(owner.min()) < 0 or int(owner.max()) >= images:
        raise InputError(f"image_of_text: expected numbers from 0 to {images - 1} for {texts} texts")
    if not ks or min(ks) < 1 or chunk < 1:
        raise InputError(f"expected ks and chunk of 1 or more, found {list(ks)} and {chunk}")
    _check_norms(image_features, "image_features", chunk)
    _check_norms(text_features, "text_features", chunk)
    numbers = torch.arange(images, device=owner.device)
    has_text = torch.zeros(images, dtype=torch.bool, device=owner.device)
    has_text[owner] = True
    with torch.no_grad():
        image_ranks = _ranks(image_features, text_features, numbers, owner, chunk)[has_text]
        text_ranks = _ranks(text_features, image_features, owner, numbers, chunk)
    return RetrievalMetrics(_measured(image_ranks, ks), _measured(text_ranks, ks))


def _ranks(queries: Tensor, answers: Tensor, labels: Tensor, answer_labels: Tensor, chunk: int) -> Tensor:
    """Return the rank of each query's nearest answer of its own label, int64 `[N]`; in float32 at least."""
    import torch

    dtype = torch.promote_types(torch.promote_types(queries.dtype, answers.dtype), torch.float32)
    ranks: list[Tensor] = []
    for start in range(0, len(queries), chunk):
        rows, row_labels = queries[start : start + chunk].to(dtype), labels[start : start + chunk]
        nearest = rows.new_full((len(rows),), -torch.inf)
        for similar, right in _tiles(rows, row_labels, answers, answer_labels, chunk):
            nearest = torch.maximum(nearest, similar.masked_fill(~right, -torch.inf).amax(dim=1))
        before = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
        for similar, right in _tiles(rows, row_labels, answers, answer_labels, chunk):
            before += ((similar >= nearest[:, None]) & ~right).sum(dim=1)
        ranks.append(before + 1)
    return torch.cat(ranks)


def _tiles(
    rows: Tensor, labels: Tensor, answers: Tensor, answer_labels: Tensor, chunk: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield similarities `[n, chunk]` and where they are those of right answers."""
    for start in range(0, len(answers), chunk):
        columns = answers[start : start + chunk].to(rows.dtype)
        yield rows @ columns.T, labels[:, None] == answer_labels[start : start + chunk]


def _check_norms(features: Tensor, name: str, chunk: int) -> None:
    """Refuse features whose products are no cosines, or no numbers: their ranks would look like those of any other."""
    for start in range(0, len(features), chunk):
        norms = features[start : start + chunk].float().square().sum(dim=1).sqrt()
        wrong = ~((norms - 1).abs() <= NORM_TOLERANCE)  # NaN too
        if bool(wrong.any()):
            row = int(wrong.int().argmax())
            raise InputError(
                f"{name}: expected unit norms, but row {start + row} has {float(norms[row]):.4g}; "
                "encode with normalize=True"
            )


def _measured(ranks: Tensor, ks: Sequence[int]) -> Retrieval:
    ordered = ranks.double().sort().values
    median = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return Retrieval({k: float((ranks <= k).double().mean()) for k in ks}, float(ordered.mean()), float(median))
