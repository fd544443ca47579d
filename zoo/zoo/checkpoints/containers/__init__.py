"""Containers of weights, listed without reading a tensor.

The content of a file, not its name, decides how it is read. Pickles are read as trees by a machine of our own, not by
`torch.load(weights_only=True)`. That refuses a checkpoint that mentions any class of training code, a module that was
saved whole and every TorchScript archive, and it needs torch to list a file. Our machine calls nothing, so that it can
read all of these, and a file that would run code is refused whichever class it names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.checkpoints.containers.mapped import MappedFile
from zoo.checkpoints.containers.safetensors import SafetensorsFile, looks_like_safetensors
from zoo.checkpoints.containers.shards import ShardedSource, read_index
from zoo.checkpoints.containers.torch_files import TorchFile, looks_like_legacy
from zoo.checkpoints.containers.wrappers import plain_names
from zoo_core.checkpoints import TensorInfo, TensorSource
from zoo_core.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["INDEX", "WEIGHT_NAMES", "find_weights", "open_container", "weights_among"]

WEIGHT_NAMES = (
    "open_clip_model.safetensors",
    "model.safetensors",
    "open_clip_model.safetensors.index.json",
    "model.safetensors.index.json",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Names that weights have in folders, those to be preferred first."""

INDEX = ".index.json"
"""How an index of several files of weights ends."""
_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".npz")
_HEAD = 512


def open_container(path: str | Path, *, weights: str | None = None) -> TensorSource:
    """List the tensors of a file or folder without reading them; wrappers of training code are taken off.

    Args:
        path: weights of any container, an index of several files, or a folder that holds one or the other.
        weights: which of several state dicts: None for the trained one, `"ema"`, or its name in the file.

    Raises:
        CheckpointError: it holds no weights that can be read; the line says what it is instead, where that can be told.
    """
    path = Path(path)
    if path.is_dir():
        path = find_weights(path)
    if path.name.endswith(INDEX):
        source: TensorSource = ShardedSource(path, partial(_open_file, weights=weights))
    else:
        source = _open_file(path, weights)
    names, notes = plain_names(source.entries)
    return RenamedSource(source, names, notes) if notes else source


def find_weights(folder: Path) -> Path:
    """Return the file of a folder that holds its weights.

    Raises:
        CheckpointError: there is none, or several could be meant.
    """
    names = weights_among(path.name for path in folder.iterdir() if path.is_file())
    if len(names) == 1:
        return folder / names[0]
    what = f"several: {', '.join(names[:6])}" if names else "none"
    raise CheckpointError(f"{folder} is a folder, expected one file of weights in it, found {what}; name the file")


def weights_among(names: Iterable[str]) -> list[str]:
    """Return the file of a folder that holds its weights, or an index of them; several where any of them may."""
    files = sorted(names)
    usual = [name for name in WEIGHT_NAMES if name in files]
    candidates = usual[:1] or [name for name in files if name.endswith(_ENDINGS)]
    return [name for name in candidates if name.endswith(".safetensors")] or candidates


class RenamedSource(TensorSource):
    """A source whose entries go by other names.

    Args:
        source: the source.
        names: the other name of each entry; entries that have none are left out.
        notes: why.
    """

    def __init__(self, source: TensorSource, names: Mapping[str, str], notes: tuple[str, ...]) -> None:
        self.path, self.container, self.metadata = source.path, source.container, source.metadata
        self.notes = (*source.notes, *notes)
        self._source = source
        self._names = {now: name for name, now in names.items()}
        self.entries: Mapping[str, TensorInfo] = {now: source.entries[name] for name, now in names.items()}

    def read(self, key: str) -> Tensor:
        """Return the tensor of the other name."""
        return self._source.read(self._names[key])

    def release(self, key: str) -> None:
        """Give back the memory of the tensor of the other name."""
        self._source.release(self._names[key])

    def check(self, keys: Iterable[str]) -> None:
        """Check the tensors of the other names."""
        self._source.check([self._names[key] for key in keys])


def _open_file(path: Path, weights: str | None) -> TensorSource:
    file = MappedFile(path)
    head = file.bytes(0, _HEAD)
    if looks_like_safetensors(head):
        source: TensorSource = SafetensorsFile(file)
    elif head[:2] == b"PK":
        return _archive(file, weights)
    elif looks_like_legacy(head):
        return TorchFile(file, weights)
    else:
        raise CheckpointError(f"{path} {_what_it_is(path, head)}")
    if weights is not None:
        raise CheckpointError(f"{path} holds one set of weights, and none named {weights!r}; leave weights= out")
    return source


def _archive(file: MappedFile, weights: str | None) -> TensorSource:
    """Open a zip archive: of torch, or of numpy, whose arrays all end in `.npy`."""
    import zipfile

    try:
        with zipfile.ZipFile(file.path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"{file.path} is a damaged zip archive: {error}; truncated?") from None
    if names and all(name.endswith(".npy") for name in names):
        from zoo.checkpoints.containers.npz import NpzFile

        return NpzFile(file)
    return TorchFile(file, weights)


def _what_it_is(path: Path, head: bytes) -> str:
    """Tell from its first bytes what a file is that holds no weights."""
    start = head.lstrip().lower()
    if not head:
        return "is empty; get it again"
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        return "is a web page, not weights: the address gives a page; get the file itself"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of git-lfs, not weights; run `git lfs pull`"
    if path.suffix == ".safetensors":
        return "cannot be read as safetensors: it does not begin with a header; truncated, or another kind of file"
    if start.startswith(b"{"):
        try:
            read_index(path)
        except CheckpointError:
            return "is JSON, not weights; give the weights beside it"
        return f"is JSON, not weights; it is an index of weights, whose name must end in {INDEX}"
    if head[:6] == b"\x93NUMPY":
        return "is a single array of numpy, not weights by name"
    if head[:8] == b"\x89HDF\r\n\x1a\n":
        return "is an HDF5 file; convert it to safetensors"
    if head[257:262] == b"ustar" or head[:2] == b"\x1f\x8b":
        return "is a tar or gzip archive; unpack it and give the file of weights in it"
    return "is no file of weights: expected safetensors, a file of torch.save or an npz archive"
