"""Alternative forms of modules for inference, equal but for rounding.

They are faster on some machines and slower on others. A module offers its forms with a method `inference_forms`;
those of torch's own modules are here. A form shares its weights with the module that it replaces, takes the same
arguments, and is only used where it was measured faster (`zoo.build(..., optimize="inference")`). It changes no
setting of the process.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Protocol, TypeVar, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_core.nn.processors import lacking_flags

__all__ = [
    "InferenceForm",
    "OffersForms",
    "Optimization",
    "channels_last",
    "forms_of",
    "packed_linears",
    "recast",
    "twin",
    "widened_linears",
]

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class InferenceForm:
    """A module that may take another's place, and what is different about it."""

    name: str
    make: Callable[[], nn.Module]


@dataclass(frozen=True)
class Optimization:
    """What was done to a tower, and what it brought.

    Attributes:
        tower: `"image"` or `"text"`.
        form: the name of the form.
        modules: how many modules have it now.
        gain: how many times as fast the tower was with it, and with whatever was changed in the same step.
    """

    tower: str
    form: str
    modules: int
    gain: float


@runtime_checkable
class OffersForms(Protocol):
    """A module with forms of its own; outer modules are asked before those inside them."""

    def inference_forms(self) -> Iterable[InferenceForm]:
        """Return the forms that the module could take as it is built; none where it gains nothing."""
        ...


def forms_of(module: nn.Module) -> list[InferenceForm]:
    """Return the forms that a module offers, or that there are for a module of torch."""
    if isinstance(module, OffersForms):
        return list(module.inference_forms())
    return [*packed_linears(module), *widened_linears(module)] if type(module) is nn.Linear else []


def twin(module: M) -> M:
    """Return a copy of a module, and of all in it, that shares its parameters and buffers."""
    shared = {id(tensor): tensor for tensor in chain(module.parameters(), module.buffers())}
    return copy.deepcopy(module, shared)


def recast(module: nn.Module, form: type[M]) -> M:
    """Return a twin of a module whose class is `form`, a subclass that adds nothing but other ways to compute."""
    changed = twin(module)
    changed.__class__ = form
    return cast("M", changed)


def channels_last(module: M) -> M:
    """Lay the weights of a module's convolutions out with channels last, in place, and return it."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            weight = layer.weight.detach().contiguous(memory_format=torch.channels_last)
            layer.weight = nn.Parameter(weight, requires_grad=False)
    return module


class PackedLinear(nn.Linear):
    """A linear layer whose matrix oneDNN holds in the layout of its own products.

    torch gives float32 products to MKL, which is half as fast as oneDNN on some processors, and packs bfloat16 matrices
    anew in every call. The matrix is kept beside its packed copy: for what oneDNN does not compute, such as gradients.
    """

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.register_buffer(
            "packed", torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach()), persistent=False
        )

    def forward(self, input: Tensor) -> Tensor:
        """Return `[..., out_features]` of `[..., in_features]`."""
        if (
            input.dtype != self.weight.dtype
            or not input.numel()
            or input.requires_grad
            or torch.is_autocast_enabled("cpu")
        ):
            return super().forward(input)
        return torch.ops.mkldnn._linear_pointwise(input, self.packed, self.bias, "none", [], "")


def packed_linears(linear: nn.Module) -> list[InferenceForm]:
    """Return the packed form of a linear layer, where this build of torch has one for its device and dtype."""
    weight = cast("nn.Linear", linear).weight
    fits = weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.bfloat16)
    if not fits or not torch.backends.mkldnn.is_available() or not _can_pack(weight.dtype):
        return []
    return [InferenceForm("matrix packed for oneDNN", lambda: PackedLinear(cast("nn.Linear", linear)))]


class WideLinear(nn.Linear):
    """A linear layer in half precision that multiplies in float32, for processors that do that faster.

    The matrix is kept beside its wide copy, as in `PackedLinear`: it tells the dtype of the layer.
    """

    wide: Tensor
    wide_bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.register_buffer("wide", linear.weight.detach().float(), persistent=False)
        bias = cast("Tensor | None", linear.bias)
        self.register_buffer("wide_bias", None if bias is None else bias.detach().float(), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Return `[..., out_features]` of `[..., in_features]`."""
        if input.dtype != self.weight.dtype or input.requires_grad or torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        return F.linear(input.float(), self.wide, self.wide_bias).to(input.dtype)


def widened_linears(linear: nn.Module) -> list[InferenceForm]:
    """Return the wide form of a linear layer, where the CPU lacks instructions for its dtype."""
    weight = cast("nn.Linear", linear).weight
    if weight.device.type != "cpu" or not lacking_flags(weight.dtype):
        return []
    return [InferenceForm("multiplied in float32", lambda: WideLinear(cast("nn.Linear", linear)))]


@cache
def _can_pack(dtype: torch.dtype) -> bool:
    """Tell whether oneDNN multiplies in a dtype here: the operators are torch's own, but not for everyone to use."""
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(torch.zeros(16, 16, dtype=dtype))
        torch.ops.mkldnn._linear_pointwise(torch.zeros(1, 16, dtype=dtype), packed, None, "none", [], "")
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return True
