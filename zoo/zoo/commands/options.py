"""Options that several commands share: where a model computes, and in what numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import torch

__all__ = ["Device", "Dtype", "dtype_named"]

Device = Annotated[str | None, typer.Option(help="Where the model computes: cpu, cuda, cuda:1.")]
Dtype = Annotated[str | None, typer.Option(help="What it computes in: float32, bfloat16, float16.")]


def dtype_named(name: str | None) -> torch.dtype | None:
    """Return the dtype of a name; what is none is left to `zoo.build`, which says what is wrong with it."""
    import torch

    found: Any = None if name is None else getattr(torch, name, name)
    return found
