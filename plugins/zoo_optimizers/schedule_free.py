"""Schedule-free AdamW, of the package schedulefree.

The model holds the weights that gradients are taken at. `optimizer.eval()` puts their average in place, and
`optimizer.train()` takes it out again; training evaluates and saves models between the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer

from zoo_optimizers.config import ScheduleFreeConfig

__all__ = ["schedule_free_adamw"]


def schedule_free_adamw(config: ScheduleFreeConfig, *, groups: Sequence[dict[str, Any]]) -> Optimizer:
    """Build it, ready to train."""
    from schedulefree import AdamWScheduleFree  # pyright: ignore[reportMissingImports]

    optimizer: Any = AdamWScheduleFree(groups, lr=config.lr, betas=config.betas, eps=config.eps)
    optimizer.train()
    return optimizer
