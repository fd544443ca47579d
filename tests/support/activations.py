"""How much autograd keeps for backward passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, Self

import torch
from torch import Tensor, nn


class Kept:
    """A tensor that a graph keeps, counted until the graph lets go of it."""

    def __init__(self, tensor: Tensor, meter: ActivationMeter) -> None:
        self.tensor, self.meter = tensor, meter
        self.key, self.size = tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()
        meter.change(self.key, self.size, 1)

    def __del__(self) -> None:
        self.meter.change(self.key, self.size, -1)


class ActivationMeter:
    """A block that counts the bytes that graphs keep, weights and inputs left out; `peak` is the most at once."""

    def __init__(self, model: nn.Module, inputs: Iterable[Tensor]) -> None:
        self.others = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *inputs)}
        self.graphs: Counter[int] = Counter()
        self.bytes = self.peak = 0
        self.stack = ExitStack()

    def change(self, key: int, size: int, by: int) -> None:
        before = self.graphs[key] > 0
        self.graphs[key] += by
        self.bytes += size * ((self.graphs[key] > 0) - before)
        self.peak = max(self.peak, self.bytes)

    def pack(self, tensor: Tensor) -> Any:
        return tensor if tensor.untyped_storage().data_ptr() in self.others else Kept(tensor, self)

    def __enter__(self) -> Self:
        hooks = torch.autograd.graph.saved_tensors_hooks(
            self.pack, lambda kept: kept.tensor if isinstance(kept, Kept) else kept
        )
        self.stack.enter_context(hooks)
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()
