"""Options that several commands share: where a model computes, and in what numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo_core.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import torch

__all__ = ["Device", "Dtype", "dtype_named"]

Device = Annotated[str | None, typer.Option(help="Where the model computes: cpu, cuda, cuda:1.")]
Dtype = Annotated[str | None, typer.Option(help="What it computes in: float32, bfloat16, float16.")]

DTYPES = ("float32", "bfloat16", "float16")
"""Those that are offered; any other floating-point dtype of torch is taken too."""


def dtype_named(name: str | None) -> torch.dtype | None:
    """Return the dtype of a name.

    Raises:
        InputError: it is none that a model computes in.
    """
    import torch

    found: Any = None if name is None else getattr(torch, name, None)
    if name is not None and not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise InputError(f"--dtype '{name}'{did_you_mean(name, DTYPES, cutoff=0.4)}")
    return found
