"""Bases of modalities: how inputs are prepared, checked and encoded.

A plugin that brings a kind of input of its own subclasses `Modality` and names the class in a `ModalitySpec`.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from zoo_core.boundary import Contract
from zoo_core.errors import InputError
from zoo_core.images import moved
from zoo_core.models.chance import call_with
from zoo_core.models.features import features_of
from zoo_core.nn.precision import matrix_dtype
from zoo_core.nn.tracing import is_symbolic
from zoo_core.plugin import ModalitySpec

__all__ = ["Modality", "Processor", "device_of", "is_raw"]


class Processor(Contract, ABC):
    """Makes what a tower takes of raw inputs. A subclass gives `__call__`; the rest is derived.

    Built by a factory `(config, *, train: bool, **attributes)` with the attributes of the tower's config. Preprocessors
    of images and tokenizers have bases of their own. It is called in threads.
    """

    @abstractmethod
    def __call__(self, raw: Any) -> Tensor:
        """Return one raw input, or that of the path of a file, as the tower takes it, without the batch dimension.

        Raises:
            InputError: it cannot be used; a file is named.
        """

    def batch(self, items: Sequence[Any]) -> Tensor:
        """Return raw inputs as one batch.

        Raises:
            InputError: as calling it does, with the index of the input before the message; or there are none.
        """
        if not items:
            raise InputError("expected at least one input, found none")
        prepared: list[Tensor] = []
        for index, item in enumerate(items):
            try:
                prepared.append(self(item))
            except InputError as error:
                raise type(error)(f"inputs[{index}]: {error}") from error
        return _stacked(prepared)


class Modality(Contract, ABC):
    """One kind of input of a model. A subclass gives `check`, `example` and `probe_inputs`; the rest is derived.

    Tensors are inputs that are prepared already, but for uint8, which is raw. Everything else goes through the model's
    processor of this modality (see `Processor`).

    Args:
        spec: the declaration of the modality.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if not cls.__module__.startswith("zoo_core."):  # zoo's own also meet the placeholders of torch.fx
            super().__init_subclass__(**kwargs)

    def __init__(self, spec: ModalitySpec) -> None:
        self.spec = spec

    @property
    def name(self) -> str:
        """What `encode`, `towers=` and outputs call it."""
        return self.spec.name

    @abstractmethod
    def check(self, batch: Any, tower: Any) -> None:
        """Hold a prepared batch to what the tower takes.

        Raises:
            InputError: it is something else; the message says what was found and allowed.
        """

    @abstractmethod
    def example(self, tower: Any, count: int, processor: Any = None) -> Tensor:
        """Return a batch of `count` random inputs of full length, on the CPU, to measure the tower with."""

    @abstractmethod
    def probe_inputs(self) -> Sequence[Any]:
        """Return a few raw inputs, the same ones always; a saved model records their features.

        They have what another preprocessing would change: unequal sides, edges and slopes, silence and sound.
        """

    def is_prepared(self, value: Any) -> bool:
        """Tell what a tower takes from what is still to be prepared; a list is judged by its first item."""
        first: Any = cast("Any", value)[0] if isinstance(value, list | tuple) and value else cast("Any", value)
        return isinstance(first, Mapping) or is_symbolic(first) or (isinstance(first, Tensor) and not is_raw(first))

    def processor(self, model: nn.Module) -> Any:
        """Return what makes batches of raw inputs for a model; None for a model built by hand."""
        return getattr(model, self.spec.processor, None)

    def prepare(self, processor: Any, raw: Sequence[Any]) -> Any:
        """Return the batch that a processor makes of raw inputs."""
        return processor.batch(list(raw))

    def prepare_one(self, processor: Any, raw: Any, *, generator: torch.Generator | None = None) -> Any:
        """Return one raw input as `collate` takes it: training prepares samples one by one, and replaces bad ones.

        Args:
            processor: what makes batches of raw inputs.
            raw: a raw input, or the bytes of a file that holds one. Here they are written to a file for the processor;
                a modality that can do without overrides this.
            generator: what chance comes from; the global generators where None.

        Raises:
            InputError: it cannot be used.
        """
        if not isinstance(raw, bytes):
            return call_with(generator, processor, raw)
        with tempfile.NamedTemporaryFile(suffix=self.spec.files[0] if self.spec.files else "") as file:
            file.write(raw)
            file.flush()
            return call_with(generator, processor, file.name)

    def collate(self, processor: Any, prepared: Sequence[Any]) -> Any:
        """Return inputs of `prepare_one` as one batch."""
        return torch.stack(list(prepared))

    def check_raw(self, raw: Any, limits: Mapping[str, Any]) -> None:
        """Refuse a raw input that training shall pass over; a modality knows some of the limits of a recipe.

        Args:
            raw: as in `prepare_one`.
            limits: `data.filter` of the recipe.

        Raises:
            InputError: it is beyond a limit.
        """

    def inputs(self, model: Any, tower: Any, value: Any) -> Any:
        """Return what the tower is called with: prepared, checked, on its device, in the dtype of its matrices.

        Args:
            model: the `DualEncoder` that the tower belongs to.
            tower: its tower of this modality.
            value: a batch, a raw input, or a list of either.

        Raises:
            InputError: the value does not fit the tower, or the model has nothing to prepare it with.
        """
        if not is_symbolic(value):
            if not isinstance(value, Tensor) or is_raw(value):
                value = moved(self._batch(model, value), device_of(tower, model.logit_scale))
            self.check(value, tower)
        return value.to(matrix_dtype(tower, value.dtype)) if value.is_floating_point() else value

    def encode(self, model: Any, tower: Any, value: Any) -> Tensor:
        """Return the features `[B, embed_dim]` of a batch, a raw input, or a list of either."""
        return features_of(tower, self.inputs(model, tower, value))

    def _batch(self, model: Any, value: Any) -> Any:
        processor = self.processor(model)
        if processor is None:
            raise InputError(
                f"expected a prepared batch, found {type(value).__name__}: this model has no {self.spec.processor}; "
                f"build it with zoo.build, or set model.{self.spec.processor}"
            )
        items = cast("Sequence[Any]", value) if isinstance(value, list | tuple) else [value]
        if items and all(isinstance(item, Tensor) and not is_raw(item) for item in items):
            return _stacked(items)
        return self.prepare(processor, items)


def _stacked(items: Sequence[Tensor]) -> Tensor:
    for index, item in enumerate(items):
        if item.shape != items[0].shape:
            shapes = f"inputs[0] is {list(items[0].shape)} and inputs[{index}] is {list(item.shape)}"
            raise InputError(f"expected prepared inputs of one shape, but {shapes}; prepare them all alike")
    return torch.stack(list(items))


def is_raw(value: object) -> bool:
    """Tell raw values (uint8) from a prepared tensor, and from what is no tensor."""
    return isinstance(value, Tensor) and value.dtype == torch.uint8


def device_of(tower: nn.Module, default: Tensor) -> torch.device:
    """Return the device that inputs of a tower go to: that of its parameters.

    Those of a tower that accelerate offloads are on the meta device until it runs; it moves inputs itself.
    """
    parameter = next(tower.parameters(), default)
    is_offloaded = parameter.is_meta and hasattr(tower, "_hf_hook")
    return torch.device("cpu") if is_offloaded else parameter.device
