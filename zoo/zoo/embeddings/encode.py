"""Embeddings of many images or captions: found, read and encoded batch by batch.

An image that cannot be read is told to the caller and left out, so the paths that come back with each batch,
not the ones that went in, say which row is whose.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import compress
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from zoo._version import __version__
from zoo.building.source import resolve
from zoo.catalog.pretrained import entries_of
from zoo.embeddings.image_folders import NO_UNICODE, PassedOver, file_ids, images_of
from zoo_core.errors import CheckpointError, InputError, ZooWarning, describe, one_of
from zoo_core.plugin import IMAGE, ModalitySpec

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
    "find_images",
    "identity",
    "open_model",
    "read_captions",
]

TABLES = (".csv", ".json", ".jsonl", ".parquet", ".tsv")
"""How files end whose lines are no captions, though many could be read as such."""

READ_AHEAD = 2
"""Batches that are read while one is encoded."""
CAPTIONS = 1024
"""Captions that are encoded in one call; the model divides them by their length."""
STANDARD_INPUT = "-"
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
        tags = entries_of(resolved.given) if resolved.kind == "name" else {}
        choice = one_of(tags) if tags else "name a file of weights, or a saved folder"
        raise CheckpointError(
            f"'{source}' needs pretrained weights, with random ones its answers mean nothing; {choice}"
        )
    return build_source(resolved, pretrained=pretrained, target=target)


def find_images(
    paths: Iterable[str | Path], passed_over: PassedOver | None = None, modality: ModalitySpec = IMAGE
) -> list[str]:
    """Return the images, or files of another modality, that files and folders stand for, as given, each once.

    Those of a folder are sorted by path.

    `-` stands for the paths on standard input, one a line, or with a null character behind each.

    Args:
        paths: files and folders.
        passed_over: takes up what is no image by its name.
        modality: says how names of files end.

    Raises:
        InputError: there is none, or text files alone, or nothing of what is named is there.
    """
    paths, passed_over = list(paths), PassedOver() if passed_over is None else passed_over
    if paths and not any(_is_standard_input(path) or os.path.lexists(path) for path in paths):
        raise InputError(f"{paths[0]}: there is no such file or folder")
    if paths and all(str(path).lower().endswith(".txt") for path in paths):
        raise InputError(f"{paths[0]} is a text file; captions are embedded with --text")
    found: dict[str, str] = {}
    file_id = file_ids()
    for path in _named(paths):
        is_folder = Path(path).is_dir()
        for image in images_of(Path(path), passed_over, modality.files) if is_folder else [str(Path(path))]:
            if _is_unicode(image):
                found.setdefault(file_id(image), image)
            else:
                passed_over.add(image, NO_UNICODE)
    if not found:
        raise InputError(f"found no {modality.name}; in a folder those count that end in {', '.join(modality.files)}")
    return list(found.values())


def read_captions(paths: Iterable[str | Path]) -> list[str]:
    """Return the lines of text files; blank lines are left out and told. `-` stands for standard input.

    Raises:
        InputError: a file cannot be read, is a table, is not UTF-8, or there is no caption at all.
    """
    captions: list[str] = []
    for path in paths:
        if str(path).lower().endswith(TABLES):
            raise InputError(f"{path} is a table, expected a caption a line; write its column out, or pipe it to '-'")
        try:
            text = (_standard_input() if _is_standard_input(path) else Path(path).read_bytes()).decode("utf-8-sig")
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8 text (byte {error.start})") from error
        lines = [line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").rstrip().split("\n")]
        captions += filter(None, lines)
        blank = lines.count("")
        if blank and any(lines):
            warnings.warn(
                f"{path}: {blank} blank lines are left out, the first of them line {lines.index('') + 1}; what "
                "follows is counted without them",
                ZooWarning,
                stacklevel=2,
            )
    if not captions:
        raise InputError("found no caption; expected one a line")
    return captions


@dataclass
class Pace:
    """Where the time of a job goes, in seconds; `bottleneck` is what would make it faster."""

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
        shares = {"reading images": self.reading, "the model": self.encoding, "writing": self.writing}
        return max(shares, key=shares.__getitem__)

    @contextmanager
    def spent(self, on: str) -> Generator[None]:
        """Count the time of the block as `reading`, `encoding` or `writing`."""
        start = perf_counter()
        yield
        setattr(self, on, getattr(self, on) + perf_counter() - start)

    def __str__(self) -> str:
        return f"{self.rate:.1f}/s, held up by {self.bottleneck}"


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
    """
    import numpy
    import torch

    pace = pace or Pace()
    processor = model.modalities[modality].processor(model)  # zoo.build gives every model its processors
    batches = _read_ahead(processor, paths, batch_size, workers or os.cpu_count() or 1)
    while True:
        with pace.spent("reading"):
            batch = next(batches, None)
        if batch is None:
            return
        for path, error in ((path, one) for path, one in batch if isinstance(one, InputError)):
            refused(path, error)
        read = [(path, one) for path, one in batch if not isinstance(one, InputError)]
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

    from zoo_core.errors import NotFiniteError

    try:
        return encode(list(items)).float().cpu().numpy()
    except NotFiniteError:
        if len(items) > 1:  # of a batch the error does not tell which
            return numpy.concatenate([_rows(encode, [item], model) for item in items])
        return numpy.full((1, model.config.embed_dim), numpy.nan, numpy.float32)


def _read_ahead(
    processor: Callable[[str], Any], paths: Sequence[str], batch_size: int, workers: int
) -> Iterator[list[tuple[str, Any]]]:
    """Yield batches of paths with their prepared image, or the error; two batches are in work beyond the one given."""
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

    `overflow` is as in `encode_text`. Whoever wants one warning for all of them asks for it by `told_once`.

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
    digest = hashlib.sha256()
    for key, tensor in model.state_dict().items():
        digest.update(f"{key} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor))
    return {
        "zoo.version": __version__,
        "zoo.model": source,
        "zoo.pretrained": pretrained or "",
        "zoo.config": json.dumps(model.config.data()),
        "zoo.dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "zoo.weights_sha256": digest.hexdigest(),
    }


def _named(paths: Iterable[str | Path]) -> Iterator[str | Path]:
    for path in paths:
        if _is_standard_input(path):
            given = _standard_input()
            lines = given.split(b"\0") if b"\0" in given else given.replace(b"\r\n", b"\n").split(b"\n")
            yield from (os.fsdecode(line) for line in lines if line)
        else:
            yield path


def _is_standard_input(path: str | Path) -> bool:
    return str(path) == STANDARD_INPUT


def _standard_input() -> bytes:
    return sys.stdin.buffer.read()


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _batches(items: Sequence[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def _bytes(tensor: Any) -> bytes:
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
