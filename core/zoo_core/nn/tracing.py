"""Detection of tracing: whether a tensor's values may be read.

Code that reads values, to check them or to skip work, asks `has_values` first. The values that a graph was recorded
with say nothing of the values that it will compute with.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor
from torch.fx import Proxy

__all__ = ["has_values", "is_recorded", "is_symbolic", "is_traced"]


def has_values(tensor: Tensor) -> bool:
    """Tell whether a tensor has values that this call may look at, and that no other call will meet another way.

    False where a graph is made (torch.compile, torch.export, torch.jit.trace, torch.onnx.export, make_fx, a CUDA
    graph), inside torch.vmap and its kin, and for meta and fake tensors.
    """
    if torch.compiler.is_compiling() or is_recorded() or tensor.is_meta:
        return False
    if tensor.is_cuda and torch.cuda.is_current_stream_capturing():  # values cannot be waited for
        return False
    fakes: Any = sys.modules.get("torch._subclasses.fake_tensor")
    return not (
        (fakes is not None and isinstance(tensor, fakes.FakeTensor))
        or torch._C._functorch.is_functorch_wrapped_tensor(tensor)  # pyright: ignore
    )


def is_recorded() -> bool:
    """Tell whether operations are written down while they run, by torch.jit.trace, make_fx or torch.export.

    What is no operation of torch's then stays in the graph as it was for the example: sizes, arrays, what is computed
    once and kept.
    """
    if torch.compiler.is_compiling():
        return not torch.compiler.is_dynamo_compiling()
    proxies: Any = sys.modules.get("torch.fx.experimental.proxy_tensor")
    tracing: bool = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    return tracing or (proxies is not None and proxies.get_proxy_mode() is not None)


def is_symbolic(value: object) -> bool:
    """Tell whether a value is one of torch.fx.symbolic_trace, which has neither values nor a shape."""
    return isinstance(value, Proxy)


def is_traced(value: object) -> bool:
    """Tell whether this call makes a graph of what is done with a value, so that checks of its shape are left out."""
    return torch.compiler.is_compiling() or is_symbolic(value) or is_recorded()
