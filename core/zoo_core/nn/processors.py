"""Half precision on CPUs: which dtypes the processor multiplies fast.

A processor without instructions for a dtype multiplies in it more slowly than in float32. A linear layer of 768 x
3072 on 256 tokens takes 2.2 times as long in bfloat16 as in float32 with AVX512 alone, and 4 times with AVX2; float16
4 times with both. With the instructions, bfloat16 takes less than half.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import torch
from torch import nn

from zoo_core.errors import SlowDtypeWarning, warn_caller
from zoo_core.nn.precision import matrix_dtype

__all__ = ["lacking_flags", "processor_flags", "tell_if_slow"]

_X86 = {torch.bfloat16: ("avx512_bf16", "amx_bf16"), torch.float16: ("avx512_fp16", "amx_fp16")}
_ARM = {torch.bfloat16: ("bf16",)}

_told: set[torch.dtype] = set()


@cache
def processor_flags() -> frozenset[str]:
    """Return the names of what the processor can do, as Linux lists them; nothing where a system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return frozenset()
    listed = (line.partition(":")[2] for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(listed, "").split())


def lacking_flags(dtype: torch.dtype) -> tuple[str, ...]:
    """Return the flags of which the CPU needs one to multiply in a dtype faster than in float32, where it has none.

    Nothing where it has one, where the dtype needs none, and where the system does not tell.
    """
    flags = processor_flags()
    by_dtype = _ARM if platform.machine().lower() in ("aarch64", "arm64") else _X86
    needed = by_dtype.get(dtype, ())
    return () if not flags or flags.intersection(needed) else needed


def tell_if_slow(model: nn.Module) -> None:
    """Warn, once for each dtype in a process, of a model whose matrices the CPU multiplies slower than in float32."""
    parameter = next(model.parameters(), None)
    if parameter is None or parameter.device.type != "cpu":
        return
    dtype = matrix_dtype(model, torch.float32)
    lacking = lacking_flags(dtype)
    if not lacking or dtype in _told:
        return
    _told.add(dtype)
    name = str(dtype).removeprefix("torch.")
    warn_caller(
        f"{name} is several times slower than float32 on this CPU, which has none of the flags {', '.join(lacking)}; "
        'compute in float32 (dtype=torch.float32, --dtype float32), or build with optimize="inference"',
        SlowDtypeWarning,
    )
