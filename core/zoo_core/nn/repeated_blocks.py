"""Blocks that a network repeats.

They are what sharding gathers and what torch.compile compiles at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

__all__ = ["repeated_blocks"]


def repeated_blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the entries of the outermost stacks in `module`: lists and sequences of two or more of one class.

    Single layers, such as those of `torch.nn`, make no stack.
    """
    if isinstance(module, nn.ModuleList | nn.Sequential) and len(module) > 1:
        classes = {type(child) for child in module}
        first = module[0]
        if len(classes) == 1 and any(True for _ in first.children()) and any(True for _ in first.parameters()):
            yield from module
            return
    for child in module.children():
        yield from repeated_blocks(child)
