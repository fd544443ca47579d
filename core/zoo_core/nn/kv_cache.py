"""KV cache: keys and values of a growing row of tokens.

A causal tower gives each token the same output whatever follows. A row that grows by one token therefore costs the
work of one token.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["KVCache", "LayerKVCache"]


class LayerKVCache:
    """Keys and values `[B, H, N, C / H]` of the tokens that one attention layer has seen."""

    def __init__(self) -> None:
        self.key: Tensor | None = None
        self.value: Tensor | None = None

    def __len__(self) -> int:
        """Return how many tokens there are in each row."""
        return 0 if self.key is None else self.key.shape[2]

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values of further tokens, and return those of all tokens."""
        self.key = key if self.key is None else torch.cat([self.key, key], dim=2)
        self.value = value if self.value is None else torch.cat([self.value, value], dim=2)
        return self.key, self.value

    def causal_mask(self, tokens: int) -> Tensor | None:
        """Return which of all N tokens the last ones attend to, bool `[tokens, N]`; None where they attend to all."""
        if tokens == 1 or self.key is None:
            return None
        allowed = torch.ones(tokens, len(self), dtype=torch.bool, device=self.key.device)
        return allowed.tril(len(self) - tokens)

    def take(self, rows: Tensor) -> None:
        """Replace the rows by those with these numbers, int64 `[R]`; a number may occur several times."""
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
        """Return the cache of a block."""
        return self._blocks.setdefault(number, LayerKVCache())

    def take(self, rows: Tensor) -> None:
        """Replace the rows by those with these numbers, int64 `[R]`; a number may occur several times."""
        for block in self._blocks.values():
            block.take(rows)
