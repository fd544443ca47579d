"""Embeddings of many images or captions: found, read and encoded batch by batch.

An image that cannot be read is told to the caller and left out, so the paths that come back with each batch,
not the ones that went in, say which row is whose.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zoo
from zoo_core.errors import CheckpointError, InputError, one_of

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

    from zoo_core.dual_encoder import DualEncoder

__all__ = [
    "EXTENSIONS",
    "embed_images",
    "embed_texts",
    "find_images",
    "identity",
    "open_model",
    "read_captions",
]

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""What counts as an image inside a folder; a file that is named itself may end in anything."""

Refused = Callable[[str, InputError], None]


def open_model(source: str, pretrained: str | None = None) -> DualEncoder:
    """Build a model that has weights worth using.

    Args:
        source: an architecture or a saved folder, as in `zoo.build`.
        pretrained: a tag or a safetensors file; a saved folder brings its own.

    Raises:
        CheckpointError: the model would have random weights.
        ZooError: as `zoo.build`.
    """
    from zoo.pretrained_entries import entries_of
    from zoo.sources import local_folder
    from zoo_core.architectures import is_path

    if pretrained is None and local_folder(source) is None:
        tags = {} if is_path(source) else entries_of(source)
        choice = one_of(tags) if tags else "name a safetensors file, or a saved folder"
        raise CheckpointError(
            f"'{source}' needs pretrained weights, with random ones its answers mean nothing; {choice}"
        )
    return zoo.build(source, pretrained=pretrained)


def find_images(paths: Iterable[str | Path]) -> list[str]:
    """Return the images that files and folders stand for, as given; those of a folder are sorted by path.

    Raises:
        InputError: there is none, or a path could be no id: it has a line break in it or is no Unicode.
    """
    found = dict.fromkeys(one for path in paths for one in _images_of(Path(path)))
    if not found:
        raise InputError(f"found no image; in a folder those count that end in {', '.join(EXTENSIONS)}")
    for path in found:
        if "\n" in path or "\r" in path or not _is_unicode(path):
            raise InputError(f"{path!r} has a line break in it or is no Unicode and can be no id; rename it")
    return list(found)


def read_captions(paths: Iterable[str | Path]) -> list[str]:
    """Return the lines of text files; blank lines are left out.

    Raises:
        InputError: a file cannot be read, is not UTF-8, or there is no caption at all.
    """
    captions: list[str] = []
    for path in paths:
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8 text (byte {error.start})") from error
        captions += [line.strip() for line in text.split("\n") if line.strip()]
    if not captions:
        raise InputError("found no caption; expected one a line")
    return captions


def embed_images(
    model: DualEncoder, paths: Sequence[str], *, batch_size: int = 32, refused: Refused
) -> Iterator[tuple[list[str], NDArray[float32]]]:
    """Yield the paths and the unit-norm features `[B, embed_dim]` (float32) of each batch.

    Args:
        model: built by `zoo.build`.
        paths: image files.
        batch_size: how many at a time.
        refused: called with the path and the reason for every image that cannot be read; it is left out.
    """
    import torch

    for batch in _batches(paths, batch_size):
        read: list[tuple[str, Any]] = []
        for path in batch:
            try:
                read.append((path, _preprocess(model, path)))
            except InputError as error:
                refused(path, error)
        if read:
            with torch.inference_mode():
                features = model.encode_image([image for _, image in read], normalize=True)
            yield [path for path, _ in read], features.float().cpu().numpy()


def embed_texts(
    model: DualEncoder, texts: Sequence[str], *, batch_size: int = 32
) -> Iterator[tuple[list[str], NDArray[float32]]]:
    """Yield captions and their unit-norm features `[B, embed_dim]` (float32), batch by batch."""
    import torch

    for batch in _batches(texts, batch_size):
        with torch.inference_mode():
            features = model.encode_text(batch, normalize=True)
        yield batch, features.float().cpu().numpy()


def identity(model: DualEncoder, source: str, pretrained: str | None) -> dict[str, str]:
    """Return what tells the embeddings of this model from those of any other, for the metadata of a file."""
    digest = hashlib.sha256()
    for key, tensor in model.state_dict().items():
        digest.update(f"{key} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor))
    assert model.config is not None  # zoo.build gives every model its config
    return {
        "zoo.version": zoo.__version__,
        "zoo.model": source,
        "zoo.pretrained": pretrained or "",
        "zoo.config": json.dumps(model.config.data()),
        "zoo.weights_sha256": digest.hexdigest(),
    }


def _images_of(path: Path) -> Iterator[str]:
    if not path.is_dir():
        yield str(path)
        return
    found = [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
    yield from (str(one) for one in sorted(found) if one.suffix.lower() in EXTENSIONS)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _batches(items: Sequence[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def _preprocess(model: DualEncoder, path: str) -> Any:
    assert model.preprocess is not None  # zoo.build gives every model its preprocessing
    return model.preprocess(path)


def _bytes(tensor: Any) -> bytes:
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
