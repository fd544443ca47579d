"""CoCa's multimodal decoder: causal blocks, each followed by cross-attention to the image.

It has no embedding and no position embedding. It continues the text tower, whose tokens come in before their last
norm. Parameter names are those of published CoCa checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]

from zoo_coca.config import MultimodalConfig
from zoo_core.interfaces import TextTower
from zoo_core.nn.attention import CrossAttention
from zoo_core.nn.kv_cache import KVCache
from zoo_core.nn.transformer import LayerNorm, ResidualBlock, Transformer, draw_weights

Context = Sequence[tuple[Tensor, Tensor]]
"""Keys and values `[B, H, N, C / H]` of the image tokens, for each block that looks at them."""


class CrossBlock(ResidualBlock):
    """A residual block with cross-attention. The arguments are those of `ResidualBlock`."""

    attention_class = CrossAttention
    attn: CrossAttention

    def __init__(self, config: MultimodalConfig) -> None:
        hidden = int(config.width * config.mlp_ratio)
        super().__init__(config.width, config.heads, hidden, config.activation, config.ls_init_value, config.norm_eps)
        self.ln_1_kv = LayerNorm(config.width, eps=config.norm_eps)

    def keys_and_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values `[B, H, N, C / H]` of the image tokens `[B, N, C]`."""
        return self.attn.keys_and_values(self.ln_1_kv(context))

    def look(self, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Like `forward`, but with the keys and values of the image tokens."""
        x = x + self.ls_1(self.attn.look(self.ln_1(x), key, value))
        return x + self.ls_2(self.mlp(self.ln_2(x)))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Transform tokens `[B, L, C]` that attend to image tokens `[B, N, C]`."""
        return self.look(x, *self.keys_and_values(context))


class MultimodalDecoder(Transformer):
    """Predicts each next token of a caption of an image.

    Args:
        config: sizes and options.
        vocab_size: how many tokens there are.
    """

    def __init__(self, config: MultimodalConfig, *, vocab_size: int) -> None:
        super().__init__(
            config.width,
            config.layers,
            config.heads,
            mlp_ratio=config.mlp_ratio,
            activation=config.activation,
            ls_init_value=config.ls_init_value,
            norm_eps=config.norm_eps,
        )
        self.cross_attn = nn.ModuleList(CrossBlock(config) for _ in range(config.layers))
        self.ln_final = LayerNorm(config.width, eps=config.norm_eps)
        self.text_projection = nn.Parameter(config.width**-0.5 * torch.randn(config.width, vocab_size))
        draw_weights(self._cross_blocks(), config.width)

    def forward(self, image_tokens: Tensor, text_tokens: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return logits `[B, L, vocab_size]` of the token after each of `text_tokens` `[B, L, C]`.

        Args:
            image_tokens: `[B, N, C]` of the image tower.
            text_tokens: `[B, L, C]` of the text tower.
        """
        x = text_tokens
        for block, cross in self._pairs():
            if self.grad_checkpointing and torch.is_grad_enabled():
                x = cast("Tensor", checkpoint(block, x, True, use_reentrant=False))
                x = cast("Tensor", checkpoint(cross, x, image_tokens, use_reentrant=False))
            else:
                x = cross(block(x, causal=True), image_tokens)
        return self.ln_final(x) @ self.text_projection

    def context(self, image_tokens: Tensor) -> Context:
        """Return what `decode_step` looks at of image tokens `[B, N, C]`."""
        return [cross.keys_and_values(image_tokens) for cross in self._cross_blocks()]

    def decode_step(self, x: Tensor, cache: KVCache, context: Context = ()) -> Tensor:
        """Return logits `[B, vocab_size]` of the token after the last of those that follow the ones in `cache`.

        Args:
            x: tokens `[B, n, C]` of the text tower.
            cache: of the tokens before them, which are added to it.
            context: of the image, from `context`.
        """
        for number, ((block, cross), (key, value)) in enumerate(zip(self._pairs(), context, strict=True)):
            x = cross.look(block(x, cache=cache.block(number)), key, value)
        return self.ln_final(x[:, -1]) @ self.text_projection

    def _cross_blocks(self) -> Sequence[CrossBlock]:
        return cast("Sequence[CrossBlock]", self.cross_attn)

    def _pairs(self) -> Iterator[tuple[ResidualBlock, CrossBlock]]:
        return zip(self.blocks(), self._cross_blocks(), strict=True)


class CaptionSteps:
    """The next token of captions that grow, at the cost of the new tokens alone: text tower, then decoder.

    Args:
        text: tower that offers `decode_step`.
        decoder: of the same model.
        image_tokens: `[B, N, C]`, one image for each caption.
    """

    def __init__(self, text: TextTower, decoder: MultimodalDecoder, image_tokens: Tensor) -> None:
        self._text = text
        self._decoder = decoder
        self._context = decoder.context(image_tokens)
        self._text_cache = KVCache()
        self._decoder_cache = KVCache()

    def next_logits(self, ids: Tensor) -> Tensor:
        """Return logits `[R, vocab_size]` of the token after ids `[R, n]`, which follow those given before."""
        tokens = self._text.decode_step(ids, self._text_cache)
        return self._decoder.decode_step(tokens, self._decoder_cache, self._context)

    def repeat(self, times: int) -> None:
        """Turn each caption into `times` captions of its image, before the first token."""
        self._context = [
            (key.repeat_interleave(times, dim=0), value.repeat_interleave(times, dim=0)) for key, value in self._context
        ]

    def take(self, rows: Tensor) -> None:
        """Go on with these of the captions, int64 `[R]`: each in a place of the same image."""
        self._text_cache.take(rows)
        self._decoder_cache.take(rows)
