"""What a checkpoint is to everything that reads one: names, dtypes and shapes first, a tensor only when asked for.

A file of any container is a `TensorSource`; a layout of another library is a `CheckpointFormat`, which plans how its
entries become ours. Both are known before a tensor is read, so that whatever does not fit is told while nothing has
been changed. This module imports neither torch nor numpy: identifying a checkpoint needs neither.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from zoo_core.boundary import Contract
from zoo_core.boundary.plugin_code import PluginCode, maker_of
from zoo_core.errors import LONGEST_KEY, CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ITEM_SIZES", "CheckpointFormat", "Conversion", "ConvertedSource", "TensorInfo", "TensorSource", "shown"]

ITEM_SIZES: Mapping[str, int] = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "complex64": 8,
    "complex128": 16,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint64": 8,
    "uint32": 4,
    "uint16": 2,
    "uint8": 1,
    "bool": 1,
}
"""Bytes of one value of each dtype that a checkpoint may hold, by torch's names."""


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor without reading it.

    Attributes:
        dtype: torch's name of it, such as `"bfloat16"`.
        shape: its sizes.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def is_float(self) -> bool:
        """Whether its values are real numbers in floating point."""
        return "float" in self.dtype


class TensorSource(ABC):
    """Named tensors of a file, each read when it is asked for.

    Attributes:
        path: the file or folder, for messages.
        container: what kind of file it is, for messages.
        entries: what it holds.
        metadata: text that the file carries beside its tensors.
        notes: what was assumed in reading it, one sentence each.
    """

    path: Path
    container: str
    entries: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @abstractmethod
    def read(self, key: str) -> Tensor:
        """Return a tensor, on the CPU and mapped from the file where the container allows it.

        Raises:
            KeyError: there is no such entry.
            CheckpointError: the file is damaged.
        """

    def release(self, key: str) -> None:
        """Give back the memory that reading `key` took, if it can be; only where nothing of the tensor is in use."""
        return

    def check(self, keys: Iterable[str]) -> None:
        """Read the tensors of `keys` once and keep none, to tell what names and shapes do not.

        Raises:
            CheckpointError: bytes are damaged, or a value is NaN or infinite.
        """
        from zoo_core.checkpoints.finite import expect_finite

        for key in keys:
            expect_finite(self.read(key), key, self.path)


class Conversion(Protocol):
    """One step from entries of another layout to entries of ours: a rename, a transpose, a split, a constant, ...

    Attributes:
        sources: the entries that it reads; none for a constant.
        targets: the entries that it makes.
    """

    @property
    def sources(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def targets(self) -> tuple[str, ...]: ...  # noqa: D102

    def infer(self, found: Sequence[TensorInfo]) -> Sequence[TensorInfo]:
        """Return what `apply` will make of such tensors.

        Raises:
            CheckpointError: no such tensors can be converted.
        """
        ...

    def apply(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Convert tensors, without changing them."""
        ...

    def inverse(self) -> Conversion:
        """Return the step that leads back."""
        ...


class CheckpointFormat(Contract, ABC):
    """A layout of checkpoints of another library; made by the factory of a `checkpoint-format` component.

    It sees names without wrappers: nesting below `state_dict` and prefixes such as `module.` are gone already. Our own
    layout is that of `DualEncoder.state_dict`, with or without `text.` before the entries of the text tower.

    Attributes:
        name: the layout, for people: `"transformers CLIP"`.
        library: whose folders `export` and `files` make, for `zoo convert --to`; empty where nothing is written.
        weights_name: name of the weights in a folder of this layout.
        model_types: what the `config.json` of its folders may have as `model_type`, for errors.
    """

    name: str
    library: str = ""
    weights_name: str = "model.safetensors"
    model_types: tuple[str, ...] = ()

    @abstractmethod
    def recognises(self, entries: Mapping[str, TensorInfo]) -> bool:
        """Tell whether entries are in this layout, and could not be in another."""

    @abstractmethod
    def plan(self, entries: Mapping[str, TensorInfo]) -> Sequence[Conversion]:
        """Return the conversions of all entries that are known; others will be told as unexpected."""

    def ignores(self, entries: Mapping[str, TensorInfo]) -> Collection[str]:
        """Return entries that no model needs, such as counted positions."""
        return ()

    def facts(self, entries: Mapping[str, TensorInfo]) -> Mapping[str, object]:
        """Return keys of the architecture that the layout fixes although no shape tells them, with their values.

        OpenAI's weights, for one, go with `{"vision.activation": "quick_gelu", "text.activation": "quick_gelu"}`.
        """
        return {}

    def architecture(self, folder: Path) -> Mapping[str, Any] | None:
        """Return the architecture that the files of a folder state, preprocessing and tokenizer included.

        Returns:
            an architecture as `zoo.build` takes it; None where the folder is none of this library.

        Raises:
            ConfigError: it is one, but states what cannot be built; every such key is named.
        """
        return None

    def holds_tokenizer(self, folder: Path) -> bool:
        """Tell whether a folder holds the files of its tokenizer, which are then those that are loaded.

        That is for layouts whose architecture names another place for them.
        """
        return False

    def export(self, entries: Mapping[str, TensorInfo], config: Mapping[str, Any]) -> Sequence[Conversion]:
        """Return the conversions of our entries to this layout.

        Raises:
            CheckpointError: this layout cannot express the model.
        """
        raise CheckpointError(f"nothing can be written in the layout of {self.name}")

    def files(self, config: Mapping[str, Any]) -> Mapping[str, bytes]:
        """Return the files that stand beside the weights in a folder of this layout, by their names."""
        return {}


class ConvertedSource(TensorSource):
    """A checkpoint of another layout, seen in ours.

    Args:
        source: the checkpoint.
        layout: what recognised it.

    Raises:
        CheckpointError: a shape cannot be right, or two conversions make one entry.
    """

    def __init__(self, source: TensorSource, layout: CheckpointFormat) -> None:
        self.path, self.container, self.metadata = source.path, source.container, source.metadata
        self.notes = (*source.notes, f"converted from the layout of {layout.name}")
        self.facts: Mapping[str, object] = layout.facts(source.entries)
        """What the layout fixes of the architecture."""
        self._source = source
        self._makers: dict[str, tuple[Conversion, int]] = {}
        entries: dict[str, TensorInfo] = {}
        left = dict.fromkeys(source.entries)
        self._owner = maker_of(type(layout))
        for step in layout.plan(source.entries):
            with PluginCode(self._owner, "a conversion does not tell what it makes"):
                infos = step.infer([source.entries[key] for key in step.sources])
                made = list(zip(step.targets, infos, strict=True))
            for at, (target, info) in enumerate(made):
                if target in entries:
                    raise CheckpointError(f"{self.path}: two entries of {layout.name} would become '{target}'")
                entries[target], self._makers[target] = info, (step, at)
            for key in step.sources:
                left.pop(key, None)
        ignored = set(layout.ignores(source.entries))
        self.unconverted: Mapping[str, TensorInfo] = {
            key: source.entries[key] for key in left if key not in ignored and key not in entries
        }
        """Entries that the layout does not know; they keep their names."""
        self.entries = entries | dict(self.unconverted)
        self._last: tuple[Conversion, Sequence[Tensor]] | None = None

    def read(self, key: str) -> Tensor:
        """Return a converted tensor; the others that the same step makes are kept until another one is asked for."""
        if key in self.unconverted:
            return self._source.read(key)
        step, at = self._makers[key]
        if self._last is None or self._last[0] is not step:
            sources = [self._source.read(one) for one in step.sources]
            with PluginCode(self._owner, f"the conversion to '{key}' failed"):
                self._last = (step, list(step.apply(sources)))
        with PluginCode(self._owner, f"the conversion does not give '{key}'"):
            found, wanted = self._last[1][at], self.entries[key].shape
            if tuple(found.shape) != wanted:
                raise ValueError(f"expected shape {list(wanted)}, found {list(found.shape)}")
        return found

    def check(self, keys: Iterable[str]) -> None:
        """Check the tensors that `keys` are made of."""
        steps = {id(step): step for step, _ in (self._makers[key] for key in keys if key in self._makers)}
        self._source.check(dict.fromkeys(key for step in steps.values() for key in step.sources))
        self._source.check(key for key in keys if key in self.unconverted)


def shown(keys: Iterable[str], limit: int = 6) -> str:
    """Return names for a message, cut after `limit`."""
    listed = list(keys)
    names = (name if len(name) <= LONGEST_KEY else f"{name[: LONGEST_KEY - 3]}..." for name in listed[:limit])
    return ", ".join(names) + (f" and {len(listed) - limit} more" if len(listed) > limit else "")
