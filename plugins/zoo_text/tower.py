"""CLIP's text transformer (Radford et al. 2021): causal, pooled at the end-of-text token, projected.

The end-of-text token has the largest id, so its position is the argmax of a row. Whatever follows it cannot change
the feature, which is why rows may be shorter than the context length. Parameter names are the published ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo_core.errors import InputError
from zoo_core.interfaces import LayerGroup, TextTower
from zoo_core.transformer import LayerNorm, Transformer, take_indices
from zoo_text.config import ClipTextConfig


class TextTransformer(TextTower):
    """A causal text transformer.

    Args:
        config: sizes and options.
        embed_dim: width of the pooled feature.
    """

    variable_text_length = True

    def __init__(self, config: ClipTextConfig, *, embed_dim: int) -> None:
        super().__init__()
        self.context_length = config.context_length
        self.vocab_size = config.vocab_size
        self.output_dim = embed_dim
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, config.width))
        self.transformer = Transformer(
            config.width,
            config.layers,
            config.heads,
            mlp_ratio=config.mlp_ratio,
            activation=config.activation,
            ls_init_value=config.ls_init_value,
            norm_eps=config.norm_eps,
        )
        self.ln_final = LayerNorm(config.width, eps=config.norm_eps)
        self.text_projection = nn.Parameter(torch.empty(config.width, embed_dim))
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.text_projection, std=config.width**-0.5)

    def forward(self, text: Tensor) -> Tensor:
        """Return features `[B, embed_dim]` of token ids `[B, L]`."""
        return self._pool(self.transformer(self._embed(text), causal=True), text)

    def forward_tokens(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return features `[B, embed_dim]` and normed tokens `[B, L, width]`."""
        x = self.transformer(self._embed(text), causal=True)
        return self._pool(x, text), self.ln_final(x)

    def forward_intermediates(
        self,
        text: Tensor,
        *,
        indices: int | Sequence[int] | None = None,
        stop_early: bool = False,
        normalize_intermediates: bool = False,
        intermediates_only: bool = False,
        output_fmt: str = "NLC",
        output_extra_tokens: bool = False,
    ) -> dict[str, Any]:
        """Return the outputs of blocks; see `TextTower.forward_intermediates`. No tokens are appended here."""
        if output_fmt != "NLC":
            raise InputError(f"text_output_fmt must be 'NLC', found {output_fmt!r}")
        x, kept = self.transformer.forward_intermediates(
            self._embed(text),
            take_indices(indices, len(self.transformer.resblocks)),
            causal=True,
            stop_early=stop_early and intermediates_only,
        )
        if normalize_intermediates:
            kept = [self.ln_final(tokens) for tokens in kept]
        output: dict[str, Any] = {"text_intermediates": kept}
        if not intermediates_only:
            output["text_features"] = self._pool(x, text)
        return output

    def layer_groups(self) -> Sequence[LayerGroup]:
        """Return the embeddings, each block (the last with the final norm) and the projection."""
        *blocks, last = self.transformer.resblocks
        stem = [self.token_embedding, self.positional_embedding]
        return [stem, *([block] for block in blocks), [last, self.ln_final], [self.text_projection]]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass."""
        self.transformer.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Return the positions."""
        return {"positional_embedding"}

    def _embed(self, text: Tensor) -> Tensor:
        dtype = self.text_projection.dtype
        positions = self.positional_embedding[: text.shape[1]]
        return self.token_embedding(text).to(dtype) + positions.to(dtype)  # [B, L, C]

    def _pool(self, x: Tensor, text: Tensor) -> Tensor:
        rows = torch.arange(x.shape[0], device=x.device)
        return self.ln_final(x[rows, text.argmax(dim=-1)]) @ self.text_projection
