"""The modern text transformer of open_clip's development branch: rotary positions, gates, RMS norms, registers.

What you would not guess: rows may be shorter than the context length, always, since padding changes no feature. Tokens
do not look at it (in a causal tower because it stands behind them), and no pooling reads it. A row of padding alone is
read as if its first token were none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]

from zoo_core.errors import CapabilityError, InputError
from zoo_core.interfaces import LayerGroup, TextTower
from zoo_core.nn.kv_cache import KVCache
from zoo_core.nn.layers import LayerNorm, RMSNorm
from zoo_core.nn.pooling import mean_of_kept
from zoo_core.nn.rotary import rotation
from zoo_text.modern.block import AttentionPool, ModernBlock, norm_layer
from zoo_text.modern.config import ModernTextConfig
from zoo_text.modern.init import draw_block, draw_linear, draw_pool

__all__ = ["ModernTextTransformer"]


class ModernTextTransformer(TextTower):
    """A text transformer for rows of any length up to the context length.

    Args:
        config: sizes and options.
        embed_dim: width of the pooled feature.
    """

    variable_text_length = True

    def __init__(self, config: ModernTextConfig, *, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.context_length = config.context_length
        self.vocab_size = config.vocab_size
        self.output_dim = embed_dim
        self.pad_id = config.pad_id
        self.num_prefix_tokens = config.reg_tokens
        self.grad_checkpointing = False
        self.token_embedding = nn.Embedding(config.vocab_size, config.width, padding_idx=config.pad_id)
        registers = torch.empty(1, config.reg_tokens, config.width)
        self.reg_tokens = nn.Parameter(registers) if config.reg_tokens else None
        self.norm_pre = norm_layer(config) if config.pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(ModernBlock(config, first=number == 0) for number in range(config.layers))
        self.ln_final = norm_layer(config)
        self.pool = AttentionPool(config) if config.pool_type == "map" else None
        linear = config.proj_type == "linear"
        self.text_projection = nn.Linear(config.width, embed_dim, bias=config.proj_bias) if linear else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew; padding has an embedding of zeros that learns nothing."""
        config = self.config
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        with torch.no_grad():
            self.token_embedding.weight[config.pad_id].zero_()
        if self.reg_tokens is not None:
            nn.init.normal_(self.reg_tokens, std=1e-6)
        for block in self._blocks():
            draw_block(block, config)
        if self.pool is not None:
            draw_pool(self.pool, config)
        if self.text_projection is not None:
            draw_linear(self.text_projection, config.width**-0.5)

    def forward(self, text: Tensor) -> Tensor:
        """Return features `[B, embed_dim]` of token ids `[B, L]`."""
        return self.forward_tokens(text)[0]

    def read_lengths(self, text: Tensor) -> Tensor:
        """Return the number of ids of each row of `text` `[B, L]` up to the last that is read, at least one."""
        kept = self._kept(text)
        return (self._ends(text, kept) if self.config.causal and self.config.pool_type == "eos" else _last(kept)) + 1

    def forward_tokens(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return features `[B, embed_dim]` and the normed tokens `[B, L, width]` of the text, padding included."""
        tokens = self._own(self.ln_final(self._encode(text)))
        return self._pool(tokens, text), tokens

    def decode_step(self, text: Tensor, memory: KVCache) -> Tensor:
        """Return the tokens `[B, n, width]` of ids that follow; see `TextTower.decode_step`.

        The memory holds the registers too, before the first ids.
        """
        if not self.config.causal:
            raise CapabilityError("this text tower is not causal: its tokens depend on later ones")
        begins = len(memory) == 0
        x = self._embed(text, registers=begins)
        end = len(memory) + x.shape[1]
        if (tokens := end - self.config.reg_tokens) > self.context_length:
            raise InputError(f"{tokens} tokens are more than the context length {self.context_length}")
        turn, value = self._turn(range(len(memory), end), x), None
        for number, block in enumerate(self._blocks()):
            x, value = block(x, turn, first_value=value, memory=memory.block(number))
        tokens = self.ln_final(x)
        return self._own(tokens) if begins else tokens

    def num_blocks(self) -> int:
        """Return the number of blocks."""
        return len(self.blocks)

    def forward_blocks(self, text: Tensor, /) -> Iterator[Tensor]:
        """Yield the output of each block, tokens `[B, R + L, width]`, registers first."""
        x = self._embed(text)
        turn, mask, value = self._turn(range(x.shape[1]), x), self._mask(text), None
        for block in self._blocks():
            x, value = self._run(block, x, turn, mask, value)
            yield x

    def forward_head(self, x: Tensor, text: Tensor, /) -> Tensor:
        """Return features `[B, embed_dim]` of the last block's output."""
        return self._pool(self._own(self.ln_final(x)), text)

    def final_norm(self) -> LayerNorm | RMSNorm:
        """Return the norm that `forward_tokens` applies."""
        return self.ln_final

    def layer_groups(self) -> Sequence[LayerGroup]:
        """Return what embeds, each block (the last with the final norm) and what makes the feature, if it learns."""
        *blocks, last = self.blocks
        stem = [self.token_embedding, self.norm_pre]
        if self.reg_tokens is not None:
            stem.append(self.reg_tokens)
        head = [part for part in (self.pool, self.text_projection) if part is not None]
        return [stem, *([block] for block in blocks), [last, self.ln_final], *([head] if head else [])]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Return the registers and the query of the pool."""
        found = {"reg_tokens": self.reg_tokens, "pool.query": self.pool}
        return {name for name, part in found.items() if part is not None}

    def _blocks(self) -> Sequence[ModernBlock]:
        return cast("Sequence[ModernBlock]", self.blocks)

    def _encode(self, text: Tensor) -> Tensor:
        """Return the last block's output `[B, R + L, width]`, registers first."""
        x = self._embed(text)
        turn, mask, value = self._turn(range(x.shape[1]), x), self._mask(text), None
        for block in self._blocks():
            x, value = self._run(block, x, turn, mask, value)
        return x

    def _run(
        self, block: ModernBlock, x: Tensor, turn: Tensor | None, mask: Tensor | None, first_value: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        arguments = (x, turn, self.config.causal, mask, first_value)
        if self.grad_checkpointing and torch.is_grad_enabled():
            return cast("Any", checkpoint(block, *arguments, use_reentrant=False))
        return block(*arguments)

    def _embed(self, text: Tensor, registers: bool = True) -> Tensor:
        x = self.token_embedding(text)  # [B, L, C]
        if registers and self.reg_tokens is not None:
            x = torch.cat([self.reg_tokens.to(x.dtype).expand(x.shape[0], -1, -1), x], dim=1)  # [B, R + L, C]
        return self.norm_pre(x)

    def _turn(self, places: range, x: Tensor) -> Tensor | None:
        """Return how queries and keys are turned at these places; registers have places too."""
        config = self.config
        if config.pos_embed == "none":
            return None
        return rotation(places, config.width // config.heads, config.rope_temperature, like=x)

    def _mask(self, text: Tensor) -> Tensor | None:
        """Return which tokens are looked at, `[B, 1, 1, R + L]`; None in a causal tower, where padding comes late."""
        if self.config.causal:
            return None
        seen = self._kept(text)
        registers = seen.new_ones(seen.shape[0], self.config.reg_tokens)
        return torch.cat([registers, seen], dim=1)[:, None, None, :]

    def _kept(self, text: Tensor) -> Tensor:
        """Return what is no padding, `[B, L]`; in a row of padding alone, the first token."""
        kept = text != self.config.pad_id
        first = torch.arange(text.shape[1], device=text.device) == 0
        return kept | (first & ~kept.any(dim=1, keepdim=True))

    def _own(self, x: Tensor) -> Tensor:
        """Return the tokens without the registers."""
        return x[:, self.config.reg_tokens :]

    def _pool(self, tokens: Tensor, text: Tensor) -> Tensor:
        kept = self._kept(text)
        match self.config.pool_type:
            case "eos":
                pooled = tokens[torch.arange(tokens.shape[0], device=tokens.device), self._ends(text, kept)]
            case "mean":
                pooled = mean_of_kept(tokens, kept)
            case "map":
                assert self.pool is not None
                pooled = self.pool(tokens, kept)
        return pooled if self.text_projection is None else self.text_projection(pooled)

    def _ends(self, text: Tensor, kept: Tensor) -> Tensor:
        """Return where each row has its first end of text, or, if it was cut off, its last token that is kept."""
        ends = text == self.config.eos_id
        return torch.where(ends.any(dim=1), ends.int().argmax(dim=1), _last(kept))


def _last(kept: Tensor) -> Tensor:
    """Return the last place of each row that is true in `[B, L]`; 0 where none is."""
    return (kept * torch.arange(kept.shape[1], device=kept.device)).amax(dim=1)
