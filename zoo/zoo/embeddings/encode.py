"""Embeddings of many images or captions, batch by batch.

An image that cannot be read is left out, and the caller gets its error. So the paths that come back with each batch,
not the ones that went in, are those of its rows.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import compress
from time import perf_counter
from typing import TYPE_CHECKING, Any

from zoo._version import __version__
from zoo.building.source import resolve
from zoo.catalog.pretrained import entries_of
from zoo_core.errors import CheckpointError, InputError, NotFiniteError, describe, one_of

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray
    from torch import Tensor

    from zoo_core.models.dual_encoder import DualEncoder
    from zoo_core.text.truncation import Overflow

__all__ = [
    "Pace",
    "embed_files",
    "embed_images",
    "embed_texts",
    "expect_modality",
    "identity",
    "open_model",
]

READ_AHEAD = 2
"""Batches that are read while one is encoded."""
CAPTIONS = 1024
"""Captions that are encoded in one call; the model divides them by their length."""
NOT_FINITE = "compute in float32 (--dtype float32), or look at its weights"

Refused = Callable[[str, InputError], None]


def open_model(source: str, pretrained: str | None = None, **target: Any) -> DualEncoder:
    """Build a model that has weights worth using.

    Args:
        source: what `zoo.build` takes, or `NAME:TAG`.
        pretrained: a tag or a file of weights; a saved folder brings its own.
        target: `device` and `dtype` of `zoo.build`.

    Raises:
        CheckpointError: the model would have random weights.
        ZooError: as `zoo.build`.
    """
    from zoo.building.build import build_source  # imports torch

    resolved = resolve(source)
    if pretrained is None and not resolved.has_weights:
        tags = entries_of(resolved.argument) if resolved.kind == "name" else {}
        choice = one_of(tags) if tags else "name a file of weights, or a saved folder"
        raise CheckpointError(
            f"'{source}' needs pretrained weights, with random ones its answers mean nothing; {choice}"
        )
    return build_source(resolved, pretrained=pretrained, target=target)


@dataclass
class Pace:
    """Where the time of a job goes, in seconds; `bottleneck` is what would make it faster.

    Attributes:
        files: what the files that are read are called.
    """

    files: str = "images"
    reading: float = 0.0
    encoding: float = 0.0
    writing: float = 0.0
    done: int = 0
    started: float = field(default_factory=perf_counter)

    @property
    def rate(self) -> float:
        """Inputs a second."""
        return self.done / max(perf_counter() - self.started, 1e-9)

    @property
    def bottleneck(self) -> str:
        """What the job waits for most."""
        shares = {f"reading {self.files}": self.reading, "the model": self.encoding, "writing": self.writing}
        return max(shares, key=shares.__getitem__)

    @contextmanager
    def spent(self, on: str) -> Generator[None]:
        """Count the time of the block as `reading`, `encoding` or `writing`."""
        start = perf_counter()
        yield
        setattr(self, on, getattr(self, on) + perf_counter() - start)

    def __str__(self) -> str:
        return f"{self.rate:.1f}/s, held up by {self.bottleneck}"


def expect_modality(model: DualEncoder, modality: str) -> None:
    """Raise where a model has no tower of a modality.

    Raises:
        InputError: it has none; those that it has are named.
    """
    if modality not in model.towers:
        raise InputError(f"this model embeds no {modality}; {one_of(model.towers)}")


def embed_images(
    model: DualEncoder, paths: Sequence[str], **options: Any
) -> Iterator[tuple[list[str], NDArray[float32]]]:
    """Yield what `embed_files` does, of image files."""
    return embed_files(model, "image", paths, **options)


def embed_files(
    model: DualEncoder,
    modality: str,
    paths: Sequence[str],
    *,
    batch_size: int = 32,
    workers: int | None = None,
    refused: Refused,
    pace: Pace | None = None,
) -> Iterator[tuple[list[str], NDArray[float32]]]:
    """Yield the paths and the unit-norm features `[B, embed_dim]` (float32) of each batch.

    Files are read and prepared in threads while the model encodes those before them; Pillow and torch let go of the
    interpreter meanwhile.

    Args:
        model: built by `zoo.build`.
        modality: what the files hold.
        paths: files.
        batch_size: how many at a time.
        workers: threads that read; as many as there are processors where None.
        refused: called with the path and the reason for every file that cannot be read, or whose features are not
            finite; it is left out.
        pace: takes up where the time goes.

    Raises:
        InputError: the model has no tower of the modality.
    """
    import numpy
    import torch

    expect_modality(model, modality)
    pace = pace or Pace()
    processor = model.modalities[modality].processor(model)  # zoo.build gives every model its processors
    batches = _read_ahead(processor, paths, batch_size, workers or os.cpu_count() or 1)
    while True:
        with pace.spent("reading"):
            batch = next(batches, None)
        if batch is None:
            return
        for path, outcome in batch:
            if isinstance(outcome, InputError):
                refused(path, outcome)
        read = [(path, outcome) for path, outcome in batch if not isinstance(outcome, InputError)]
        if read:
            with pace.spent("encoding"), torch.inference_mode():
                rows = _rows(partial(model.encode, modality, normalize=True), [prepared for _, prepared in read], model)
            pace.done += len(read)
            finite = [bool(numpy.isfinite(row).all()) for row in rows]
            for (path, _), is_finite in zip(read, finite, strict=True):
                if not is_finite:
                    refused(path, InputError(f"{path}: the model gives features that are not finite; {NOT_FINITE}"))
            if any(finite):
                yield [path for path, _ in compress(read, finite)], rows[finite]


def _rows(encode: Callable[[list[Any]], Tensor], items: Sequence[Any], model: DualEncoder) -> NDArray[float32]:
    """Return features as float32 `[N, embed_dim]`; a row that is not finite spoils no other."""
    import numpy

    try:
        return encode(list(items)).float().cpu().numpy()
    except NotFiniteError:
        if len(items) > 1:  # of a batch the error does not tell which
            return numpy.concatenate([_rows(encode, [item], model) for item in items])
        return numpy.full((1, model.config.embed_dim), numpy.nan, numpy.float32)


def _read_ahead(
    processor: Callable[[str], Any], paths: Sequence[str], batch_size: int, workers: int
) -> Iterator[list[tuple[str, Any]]]:
    """Yield batches of paths, each with its prepared image or error; `READ_AHEAD` further batches are being read."""
    from concurrent.futures import Future, ThreadPoolExecutor

    def prepared(path: str) -> Any:
        try:
            return processor(path)
        except InputError as error:
            return error

    waiting: deque[list[tuple[str, Future[Any]]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="zoo-read") as pool:
        try:
            for batch in _batches(paths, batch_size):
                waiting.append([(path, pool.submit(prepared, path)) for path in batch])
                if len(waiting) > READ_AHEAD:
                    yield [(path, future.result()) for path, future in waiting.popleft()]
            while waiting:
                yield [(path, future.result()) for path, future in waiting.popleft()]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def embed_texts(
    model: DualEncoder, texts: Sequence[str], *, overflow: Overflow = "warn", pace: Pace | None = None
) -> Iterator[tuple[list[str], NDArray[float32]]]:
    """Yield captions and their unit-norm features `[B, embed_dim]` (float32), some at a time.

    `overflow` is as in `encode_text`. Whoever wants one warning for all of them asks for it by `report_once`.

    Raises:
        InputError: features are not finite, or as `encode_text`.
    """
    import numpy
    import torch

    pace = pace or Pace()
    for batch in _batches(texts, CAPTIONS):
        with pace.spent("encoding"), torch.inference_mode():
            rows = _rows(partial(model.encode_text, normalize=True, overflow=overflow), batch, model)
        pace.done += len(batch)
        finite = [bool(numpy.isfinite(row).all()) for row in rows]
        if not all(finite):
            caption = describe(batch[finite.index(False)])
            raise InputError(f"the model gives features of {caption} that are not finite; {NOT_FINITE}")
        yield batch, rows


def identity(model: DualEncoder, source: str, pretrained: str | None) -> dict[str, str]:
    """Return what tells the embeddings of this model from those of any other, for the metadata of a file."""
    import torch

    digest = hashlib.sha256()
    for key, tensor in model.state_dict().items():
        digest.update(f"{key} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return {
        "zoo.version": __version__,
        "zoo.model": source,
        "zoo.pretrained": pretrained or "",
        "zoo.config": json.dumps(model.config.data()),
        "zoo.dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "zoo.weights_sha256": digest.hexdigest(),
    }


def _batches(items: Sequence[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
