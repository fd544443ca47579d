"""Checkpoint formats of other libraries, and their entries seen as ours.

A `CheckpointFormat` plans how the entries of a `TensorSource` become ours, from names and shapes alone. Whatever does
not fit is reported before a tensor is read, while nothing has been changed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from zoo_core.boundary import Contract
from zoo_core.boundary.plugin_code import PluginCode, maker_of
from zoo_core.checkpoints.tensors import TensorInfo, TensorSource
from zoo_core.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CheckpointFormat", "Conversion", "ConvertedSource"]


class Conversion(Protocol):
    """One step from entries of another format to entries of ours: a rename, a transpose, a split, a constant, ...

    Attributes:
        sources: the entries that it reads; none for a constant.
        targets: the entries that it makes.
    """

    @property
    def sources(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def targets(self) -> tuple[str, ...]: ...  # noqa: D102

    def infer(self, infos: Sequence[TensorInfo]) -> Sequence[TensorInfo]:
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
    """A checkpoint format of another library; made by the factory of a `checkpoint-format` component.

    It sees names without wrappers: nesting below `state_dict` and prefixes such as `module.` are gone already. Our own
    format is that of `DualEncoder.state_dict`, with or without `text.` before the entries of the text tower.

    Attributes:
        name: the format, for people: `"transformers CLIP"`.
        library: whose folders `export` and `files` make, for `zoo convert --to`; empty where nothing is written.
        weights_name: name of the weights in a folder of this format.
        model_types: what the `config.json` of its folders may have as `model_type`, for errors.
    """

    name: str
    library: str = ""
    weights_name: str = "model.safetensors"
    model_types: tuple[str, ...] = ()

    @abstractmethod
    def recognises(self, entries: Mapping[str, TensorInfo]) -> bool:
        """Tell whether entries are in this format, and could not be in another."""

    @abstractmethod
    def plan(self, entries: Mapping[str, TensorInfo]) -> Sequence[Conversion]:
        """Return the conversions of all entries that are known; others are reported as unexpected."""

    def ignores(self, entries: Mapping[str, TensorInfo]) -> Collection[str]:
        """Return entries that no model needs, such as counted positions."""
        return ()

    def facts(self, entries: Mapping[str, TensorInfo]) -> Mapping[str, object]:
        """Return keys of the architecture that the format fixes although no shape tells them, with their values.

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

        That is for formats whose architecture names another place for them.
        """
        return False

    def export(self, entries: Mapping[str, TensorInfo], config: Mapping[str, Any]) -> Sequence[Conversion]:
        """Return the conversions of our entries to this format.

        Raises:
            CheckpointError: this format cannot express the model.
        """
        raise CheckpointError(f"nothing can be written in the format of {self.name}")

    def files(self, config: Mapping[str, Any]) -> Mapping[str, bytes]:
        """Return the files that stand beside the weights in a folder of this format, by their names."""
        return {}


class ConvertedSource(TensorSource):
    """A checkpoint of another format, its entries seen as ours.

    Args:
        source: the checkpoint.
        checkpoint_format: the format that recognised it.

    Raises:
        CheckpointError: a shape cannot be right, or two conversions make one entry.
    """

    def __init__(self, source: TensorSource, checkpoint_format: CheckpointFormat) -> None:
        self.path, self.container, self.metadata = source.path, source.container, source.metadata
        self.notes = (*source.notes, f"converted from the format of {checkpoint_format.name}")
        self.facts: Mapping[str, object] = checkpoint_format.facts(source.entries)
        """What the format fixes of the architecture."""
        self._source = source
        self._makers: dict[str, tuple[Conversion, int]] = {}
        self._owner = maker_of(type(checkpoint_format))
        entries: dict[str, TensorInfo] = {}
        unconverted = dict.fromkeys(source.entries)
        for step in checkpoint_format.plan(source.entries):
            with PluginCode(self._owner, "a conversion does not tell what it makes"):
                infos = step.infer([source.entries[key] for key in step.sources])
                targets = list(zip(step.targets, infos, strict=True))
            for index, (target, info) in enumerate(targets):
                if target in entries:
                    raise CheckpointError(
                        f"{self.path}: two entries of {checkpoint_format.name} would become '{target}'"
                    )
                entries[target], self._makers[target] = info, (step, index)
            for key in step.sources:
                unconverted.pop(key, None)
        ignored = set(checkpoint_format.ignores(source.entries))
        self.unconverted: Mapping[str, TensorInfo] = {
            key: source.entries[key] for key in unconverted if key not in ignored and key not in entries
        }
        """Entries that the format does not know; they keep their names."""
        self.entries = entries | dict(self.unconverted)
        self._last: tuple[Conversion, Sequence[Tensor]] | None = None

    def read(self, key: str) -> Tensor:
        """Return a converted tensor; the others that the same step makes are kept until another one is asked for."""
        if key in self.unconverted:
            return self._source.read(key)
        step, index = self._makers[key]
        if self._last is None or self._last[0] is not step:
            sources = [self._source.read(source) for source in step.sources]
            with PluginCode(self._owner, f"the conversion to '{key}' failed"):
                self._last = (step, list(step.apply(sources)))
        with PluginCode(self._owner, f"the conversion does not give '{key}'"):
            tensor, shape = self._last[1][index], self.entries[key].shape
            if tuple(tensor.shape) != shape:
                raise ValueError(f"expected shape {list(shape)}, found {list(tensor.shape)}")
        return tensor

    def check(self, keys: Iterable[str]) -> None:
        """Check the tensors that `keys` are made of."""
        keys = list(keys)
        steps = {id(step): step for step, _ in (self._makers[key] for key in keys if key in self._makers)}
        self._source.check(dict.fromkeys(key for step in steps.values() for key in step.sources))
        self._source.check(key for key in keys if key in self.unconverted)
