"""Chance in the preparation of inputs, from a given generator.

A processor that has no such argument draws from the global generators of torch, numpy and Python. They are seeded for
the call and put back after it, so that what it gives depends on the generator alone.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch

__all__ = ["call_with"]


def call_with(generator: torch.Generator | None, processor: Any, raw: Any) -> Any:
    """Return what a processor makes of a raw input, with chance from a generator; from the global ones where None."""
    if generator is None:
        return processor(raw)
    if _takes_generator(processor.__class__):
        return processor(raw, generator=generator)
    with _seeded_globally(generator):
        return processor(raw)


@cache
def _takes_generator(kind: type[Any]) -> bool:
    return "generator" in inspect.signature(kind.__call__).parameters


@contextmanager
def _seeded_globally(generator: torch.Generator) -> Generator[None]:
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    seed = int(torch.randint(2**32, (), generator=generator))
    torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())  # torch.manual_seed would seed GPUs too
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])
