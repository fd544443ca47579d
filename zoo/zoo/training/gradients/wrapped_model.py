"""A model inside what trains it: DistributedDataParallel, FSDP2, torch.compile, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from zoo_core.errors import InputError
from zoo_core.models.dual_encoder import DualEncoder

__all__ = ["WrappedModel", "bare_model", "drop_gathered"]

HALF = (torch.float16, torch.bfloat16)


def bare_model(model: object) -> DualEncoder:
    """Return a model out of what DistributedDataParallel and torch.compile wrap around it.

    Raises:
        InputError: there is no model of zoo inside.
    """
    return _unwrapped(model)[1]


def _unwrapped(model: object) -> tuple[nn.Module, DualEncoder]:
    """Return a model without DDP, but as it was compiled within; and the model itself."""
    local = inner = model
    while not isinstance(inner, DualEncoder):
        if isinstance(inner, DistributedDataParallel):
            local = inner = cast("object", inner.module)
        elif isinstance(inner, nn.Module) and hasattr(inner, "_orig_mod"):
            inner = cast("object", inner._orig_mod)
        else:
            given = type(model).__name__
            raise InputError(f"expected a model of zoo, bare or in DDP, FSDP2 or torch.compile, found {given}")
    return cast("nn.Module", local), inner


@dataclass(frozen=True)
class WrappedModel:
    """A model that is trained, and the two modalities whose pairs it is trained on.

    Attributes:
        outer: what a forward pass calls, so that gradients are shared by processes.
        local: the same without DDP, which would expect a backward pass through all parameters.
        bare: the model itself.
        pair: names of the modalities.
    """

    outer: nn.Module
    local: nn.Module
    bare: DualEncoder
    pair: tuple[str, str]

    @classmethod
    def of(cls, model: object, inputs: Mapping[str, Any]) -> WrappedModel:
        """Unwrap a model, and hold it and the inputs to what a step needs.

        Raises:
            InputError: it is no model of zoo, a trained parameter is in half precision, or the inputs are not those of
                two of its modalities.
        """
        local, bare = _unwrapped(model)
        pair = tuple(name for name in bare.modalities if name in inputs)
        if len(pair) != 2 or len(inputs) != 2:
            expected, given = ", ".join(bare.modalities), ", ".join(inputs) or "none"
            raise InputError(f"expected inputs of two modalities out of {expected}, found {given}")
        for name, parameter in bare.named_parameters():
            if parameter.requires_grad and parameter.dtype in HALF:
                dtype = str(parameter.dtype).removeprefix("torch.")
                fix = "call model.float(), and let precision='bf16' compute in half precision"
                raise InputError(f"parameter '{name}' is trained in {dtype}, which loses small updates; {fix}")
        return cls(cast("nn.Module", model), local, bare, pair)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.bare.logit_scale.device

    def forward(self, inputs: Mapping[str, Any], precision: str, *, local: bool = False) -> dict[str, Any]:
        """Return what the model gives, by name, its matrix products in a precision."""
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            outputs: Any = (self.local if local else self.outer)(**inputs)
        if isinstance(outputs, Mapping):
            return dict(cast("Mapping[str, Any]", outputs))
        names = [*(f"{name}_features" for name in self.bare.modalities), "logit_scale", "logit_bias"]
        return dict(zip(names, cast("tuple[Tensor, ...]", outputs), strict=False))

    @contextmanager
    def sharing_gradients(self, shared: bool) -> Generator[None]:
        """Share the gradients of a backward pass among processes, and all that were kept before; or keep them here."""
        with ExitStack() as stack:
            if not shared and (sharded := _sharded(self.bare)) is not None:
                sharded.set_requires_gradient_sync(False)
                stack.callback(sharded.set_requires_gradient_sync, True)
            elif not shared and isinstance(self.outer, DistributedDataParallel):
                stack.enter_context(self.outer.no_sync())
            yield


def drop_gathered(model: nn.Module) -> None:
    """Have FSDP2 drop the whole weights that it gathered, since their shards are about to be read or changed."""
    for module in model.modules():
        if (sharded := _sharded(module)) is not None:
            sharded.reshard()


def _sharded(module: nn.Module) -> Any:
    """Return a module if FSDP2 shards it, else None."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # not imported for this: it takes a second
    return module if fsdp is not None and isinstance(module, fsdp.FSDPModule) else None
