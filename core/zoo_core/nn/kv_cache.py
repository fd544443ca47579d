"""What attention remembers of a row that grows: the keys and values of its tokens, block by block.

A causal tower gives each token the same output whatever follows, so that a row that grows by one token costs the
work of one token.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["KVCache", "LayerKVCache"]


class LayerKVCache:
    """Keys and values `[B, H, N, C / H]` of the tokens that one attention has seen."""

    def __init__(self) -> None:
        self.key: Tensor | None = None
        self.value: Tensor | None = None

    def __len__(self) -> int:
        """Return how many tokens there are in each row."""
        return 0 if self.key is None else self.key.shape[2]

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Take up those of further tokens, and return those of all."""
        self.key = key if self.key is None else torch.cat([self.key, key], dim=2)
        self.value = value if self.value is None else torch.cat([self.value, value], dim=2)
        return self.key, self.value

    def causal_mask(self, tokens: int) -> Tensor | None:
        """Return which of all tokens the last ones may look at, bool `[tokens, N]`; None where they see all."""
        if tokens == 1 or self.key is None:
            return None
        seen = torch.ones(tokens, len(self), dtype=torch.bool, device=self.key.device)
        return seen.tril(len(self) - tokens)

    def take(self, rows: Tensor) -> None:
        """Go on with these of the rows, int64 `[R]`; one may be taken several times."""
        if self.key is not None and self.value is not None:
            self.key, self.value = self.key[rows], self.value[rows]


class KVCache:
    """The `LayerKVCache` of each block of a tower; empty at first."""

    def __init__(self) -> None:
        self._blocks: dict[int, LayerKVCache] = {}

    def __len__(self) -> int:
        """Return how many tokens of each row were seen."""
        return max(map(len, self._blocks.values()), default=0)

    def block(self, number: int) -> LayerKVCache:
        """Return what a block remembers."""
        return self._blocks.setdefault(number, LayerKVCache())

    def take(self, rows: Tensor) -> None:
        """Go on with these of the rows, int64 `[R]`; one may be taken several times."""
        for block in self._blocks.values():
            block.take(rows)
