"""The modern text transformer of open_clip's development branch.

It has rotary positions, gates, RMS norms and registers. Rows may always be shorter than the context length, since
padding changes no feature: tokens do not attend to it (in a causal tower it comes after them), and no pooling reads
it. Of a row of padding alone, the first token is read.
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
from zoo_core.nn.pooling import masked_mean
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

    def forward_tokens(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return features `[B, embed_dim]` and the normed tokens `[B, L, width]` of the text, padding included."""
        x = self._embed(text)  # [B, R + L, width], the R registers first
        rotary, mask, value = self._rotary(range(x.shape[1]), x), self._mask(text), None
        for block in self._blocks():
            x, value = self._run(block, x, rotary, mask, value)
        tokens = self._without_registers(self.ln_final(x))  # [B, L, width]
        return self._pool(tokens, text), tokens

    def _embed(self, text: Tensor, registers: bool = True) -> Tensor:
        x = self.token_embedding(text)  # [B, L, width]
        if registers and self.reg_tokens is not None:
            x = torch.cat([self.reg_tokens.to(x.dtype).expand(x.shape[0], -1, -1), x], dim=1)  # [B, R + L, width]
        return self.norm_pre(x)

    def _rotary(self, positions: range, x: Tensor) -> Tensor | None:
        """Return the rotation of queries and keys at these positions; registers have positions too."""
        config = self.config
        if config.pos_embed == "none":
            return None
        return rotation(positions, config.width // config.heads, config.rope_temperature, like=x)

    def _mask(self, text: Tensor) -> Tensor | None:
        """Return which tokens others attend to, `[B, 1, 1, R + L]`; None in a causal tower, where padding is last."""
        if self.config.causal:
            return None
        words = self._words(text)
        registers = words.new_ones(words.shape[0], self.config.reg_tokens)
        return torch.cat([registers, words], dim=1)[:, None, None, :]

    def _words(self, text: Tensor) -> Tensor:
        """Return where there is no padding, bool `[B, L]`; in a row of padding alone, the first token."""
        words = text != self.config.pad_id
        first = torch.arange(text.shape[1], device=text.device) == 0
        return words | (first & ~words.any(dim=1, keepdim=True))

    def _run(
        self, block: ModernBlock, x: Tensor, rotary: Tensor | None, mask: Tensor | None, first_value: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        arguments = (x, rotary, self.config.causal, mask, first_value)
        if self.grad_checkpointing and torch.is_grad_enabled():
            return cast("Any", checkpoint(block, *arguments, use_reentrant=False))
        return block(*arguments)

    def _pool(self, tokens: Tensor, text: Tensor) -> Tensor:
        words = self._words(text)
        match self.config.pool_type:
            case "eos":
                pooled = tokens[torch.arange(tokens.shape[0], device=tokens.device), self._ends(text, words)]
            case "mean":
                pooled = masked_mean(tokens, words)
            case "map":
                assert self.pool is not None
                pooled = self.pool(tokens, words)
        return pooled if self.text_projection is None else self.text_projection(pooled)

    def _ends(self, text: Tensor, words: Tensor) -> Tensor:
        """Return the position `[B]` of each row's first end of text, or of its last word if the end was cut off."""
        ends = text == self.config.eos_id
        return torch.where(ends.any(dim=1), ends.int().argmax(dim=1), _last_true(words))

    def _without_registers(self, x: Tensor) -> Tensor:
        return x[:, self.config.reg_tokens :]

    def read_lengths(self, text: Tensor) -> Tensor:
        """Return the number of ids of each row of `text` `[B, L]` up to the last that is read, at least one."""
        words = self._words(text)
        at_end = self.config.causal and self.config.pool_type == "eos"
        return (self._ends(text, words) if at_end else _last_true(words)) + 1

    def decode_step(self, text: Tensor, cache: KVCache) -> Tensor:
        """Return the tokens `[B, n, width]` of ids that follow; see `TextTower.decode_step`.

        The cache holds the registers too, before the first ids.
        """
        if not self.config.causal:
            raise CapabilityError("this text tower is not causal: its tokens depend on later ones")
        start = len(cache)
        x = self._embed(text, registers=start == 0)
        end = start + x.shape[1]
        if (tokens := end - self.config.reg_tokens) > self.context_length:
            raise InputError(f"{tokens} tokens are more than the context length {self.context_length}")
        rotary, value = self._rotary(range(start, end), x), None
        for number, block in enumerate(self._blocks()):
            x, value = block(x, rotary, first_value=value, cache=cache.block(number))
        tokens = self.ln_final(x)
        return self._without_registers(tokens) if start == 0 else tokens

    def num_blocks(self) -> int:
        """Return the number of blocks."""
        return len(self.blocks)

    def forward_blocks(self, text: Tensor, /) -> Iterator[Tensor]:
        """Yield the output of each block, tokens `[B, R + L, width]`, registers first."""
        x = self._embed(text)
        rotary, mask, value = self._rotary(range(x.shape[1]), x), self._mask(text), None
        for block in self._blocks():
            x, value = self._run(block, x, rotary, mask, value)
            yield x

    def forward_head(self, x: Tensor, text: Tensor, /) -> Tensor:
        """Return features `[B, embed_dim]` of the last block's output."""
        return self._pool(self._without_registers(self.ln_final(x)), text)

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
        parts = {"reg_tokens": self.reg_tokens, "pool.query": self.pool}
        return {name for name, part in parts.items() if part is not None}

    def _blocks(self) -> Sequence[ModernBlock]:
        return cast("Sequence[ModernBlock]", self.blocks)


def _last_true(mask: Tensor) -> Tensor:
    """Return the last position of each row that is true in `[B, L]`; 0 where none is."""
    return (mask * torch.arange(mask.shape[1], device=mask.device)).amax(dim=1)
