"""CLIP's text transformer (Radford et al. 2021) and its variants.

By default it is causal and pooled at the end-of-text token, which has the largest id. What follows that token cannot
change the feature, so rows may be shorter than the context length. Any other pooling needs whole rows. Parameter names
are the published ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from zoo_core.errors import CapabilityError, InputError
from zoo_core.interfaces import LayerGroup, TextTower
from zoo_core.nn.inference_forms import InferenceForm, recast
from zoo_core.nn.kv_cache import KVCache
from zoo_core.nn.pooling import pool_at_eos, pool_at_largest_id
from zoo_core.nn.position_embedding import PositionTable
from zoo_core.nn.tracing import has_values
from zoo_core.nn.transformer import LayerNorm, Transformer
from zoo_text.clip.config import ClipTextConfig, PoolType


class TextTransformer(TextTower):
    """A text transformer.

    Args:
        config: sizes and options.
        embed_dim: width of the pooled feature.
    """

    def __init__(self, config: ClipTextConfig, *, embed_dim: int) -> None:
        super().__init__()
        self.context_length = config.context_length
        self.vocab_size = config.vocab_size
        self.width, self.heads = config.width, config.heads
        self.output_dim = embed_dim
        self.variable_text_length = config.takes_shorter_rows
        self.causal = config.causal
        self.pool_type: PoolType = config.pool_type
        self.eos_id = config.eos_id
        self.pad_id = config.pad_id
        self.num_suffix_tokens = int(config.class_token)
        self.exact_class_mask = config.class_token_mask == "exact"
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.cls_emb = nn.Parameter(torch.empty(config.width)) if config.class_token else None
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length + config.class_token, config.width))
        self.transformer = Transformer(
            config.width,
            config.layers,
            config.heads,
            mlp_ratio=config.mlp_ratio,
            activation=config.activation,
            ls_init_value=config.ls_init_value,
            norm_eps=config.norm_eps,
            options=config.block,
        )
        self.ln_final = LayerNorm(config.width, eps=config.norm_eps)
        self.text_projection = _projection(config, embed_dim)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        if self.cls_emb is not None:
            nn.init.normal_(self.cls_emb, std=0.01)

    @property
    def num_pos(self) -> int:
        """Number of positions, that of a class token included."""
        return len(self.positional_embedding)

    @property
    def attn_mask(self) -> Tensor | None:
        """Mask that is added to the attention of all positions `[N, N]`, minus infinity at later ones.

        None in a tower that is not causal. The tower itself passes `causal` to its attention and makes no mask.
        """
        if not self.causal:
            return None
        weight = self.positional_embedding
        return weight.new_full((self.num_pos, self.num_pos), -torch.inf, requires_grad=False).triu(1)

    def forward(self, text: Tensor) -> Tensor:
        """Return features `[B, embed_dim]` of token ids `[B, L]`."""
        x = self._encode(text)  # [B, L, width], or [B, L + 1, width] with a class token
        return self.forward_head(x, text)

    def _encode(self, text: Tensor) -> Tensor:
        mask = self._mask(text)
        return self.transformer(self._embed(text), causal=self.causal and mask is None, mask=mask)

    def _embed(self, text: Tensor) -> Tensor:
        dtype = self.positional_embedding.dtype
        x = self.token_embedding(text).to(dtype)  # [B, L, width]
        if self.cls_emb is not None:
            x = torch.cat([x, self.cls_emb.to(dtype).expand(x.shape[0], 1, -1)], dim=1)  # [B, L + 1, width]
        return x + self.positional_embedding[: x.shape[1]]

    def _mask(self, text: Tensor) -> Tensor | None:
        """Return which tokens may look at which, `[B, 1, N or 1, N]`; None where no padding has to be hidden."""
        if self.pad_id is None:
            return None
        seen = text != self.pad_id  # [B, L]
        if self.cls_emb is not None:
            always = seen.new_ones(seen.shape[0], 1)
            # The published mask is one position late; see `class_token_mask` of the config.
            seen = torch.cat([seen, always] if self.exact_class_mask else [always, seen], dim=1)  # [B, L + 1]
        mask = seen[:, None, None, :]
        if not self.causal:
            return mask
        return mask & torch.ones(seen.shape[1], seen.shape[1], dtype=torch.bool, device=text.device).tril()

    def forward_head(self, x: Tensor, text: Tensor, /) -> Tensor:
        """Return features `[B, embed_dim]` of the last block's output `[B, L, width]` (with a class token, L + 1)."""
        match self.pool_type:
            case "argmax":
                pooled = pool_at_largest_id(x, text)
            case "eos":
                assert self.eos_id is not None
                pooled = pool_at_eos(x, text, self.eos_id)
            case "first":
                pooled = x[:, 0]
            case "last":
                pooled = x[:, -1]
        return self._project(pooled)

    def _project(self, pooled: Tensor) -> Tensor:
        """Return features `[B, embed_dim]` of the pooled tokens `[B, width]`."""
        x = self.ln_final(pooled)
        if self.text_projection is None:
            return x
        return self.text_projection(x) if isinstance(self.text_projection, nn.Module) else x @ self.text_projection

    def read_lengths(self, text: Tensor) -> Tensor | None:
        """Return where each row of `text` `[B, L]` is pooled, plus one: no token sees a later one."""
        if not self.variable_text_length:
            return None
        if self.pool_type == "argmax":
            return text.argmax(dim=-1) + 1
        ends = text == self.eos_id
        return ends.int().argmax(dim=-1).masked_fill(~ends.any(dim=-1), text.shape[1] - 1) + 1

    def forward_tokens(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return features `[B, embed_dim]` and the tokens `[B, L, width]` of the text.

        The tokens are normed, but for a tower with a class token: as in CoCa, only that one is, and it is left out.
        """
        x = self._encode(text)
        return self.forward_head(x, text), self.ln_final(x) if self.cls_emb is None else x[:, :-1]

    def decode_step(self, text: Tensor, cache: KVCache) -> Tensor:
        """Return the tokens `[B, n, width]` of ids that follow; see `TextTower.decode_step`.

        No padding is hidden, and a class token, which looks at the others but is not looked at, is left out.
        """
        if not self.causal:
            raise CapabilityError("this text tower is not causal: its tokens depend on later ones")
        seen = len(cache)
        if seen + text.shape[1] > self.context_length:
            raise InputError(f"{seen + text.shape[1]} tokens are more than the context length {self.context_length}")
        positions = self.positional_embedding[seen : seen + text.shape[1]]
        x = self.transformer.decode_step(self.token_embedding(text).to(positions.dtype) + positions, cache)
        return self.ln_final(x) if self.cls_emb is None else x

    def num_blocks(self) -> int:
        """Return the number of residual blocks."""
        return self.transformer.layers

    def forward_blocks(self, text: Tensor, /) -> Iterator[Tensor]:
        """Yield the output of each block, tokens `[B, L, width]`, and behind them the class token, if there is one."""
        mask = self._mask(text)
        return self.transformer.forward_blocks(self._embed(text), causal=self.causal and mask is None, mask=mask)

    def final_norm(self) -> LayerNorm:
        """Return the norm that `forward_tokens` applies."""
        return self.ln_final

    def layer_groups(self) -> Sequence[LayerGroup]:
        """Return the embeddings, each block (the last with the final norm) and, if there is one, the projection."""
        *blocks, last = self.transformer.resblocks
        stem = [self.token_embedding, self.positional_embedding]
        if self.cls_emb is not None:
            stem.append(self.cls_emb)
        projection = [] if self.text_projection is None else [[self.text_projection]]
        return [stem, *([block] for block in blocks), [last, self.ln_final], *projection]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass."""
        self.transformer.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Return the positions and the class token."""
        return {"positional_embedding"} if self.cls_emb is None else {"positional_embedding", "cls_emb"}

    def position_tables(self) -> Mapping[str, PositionTable]:
        """Return the positions of the tokens, behind which the class token has its own."""
        return {"positional_embedding": PositionTable((self.context_length,), suffix=int(self.cls_emb is not None))}

    def inference_forms(self) -> Iterable[InferenceForm]:
        """Offer the tower whose last block transforms the pooled token alone."""
        if type(self) is TextTransformer and self.pool_type != "eos":
            yield InferenceForm("last block for the pooled token", lambda: recast(self, PooledTokenTransformer))


class PooledTokenTransformer(TextTransformer):
    """A text transformer that leaves out what the pooled token does not see, in the last block and behind the text."""

    def forward(self, text: Tensor) -> Tensor:
        """Return features `[B, embed_dim]` of token ids `[B, L]`."""
        if not len(text):
            return super().forward(text)
        if self.pool_type == "argmax":
            row = text.argmax(dim=-1)  # [B], the position of each row's pooled token
        else:
            last = text.shape[1] - 1 + (self.cls_emb is not None)
            row = text.new_full((len(text),), last if self.pool_type == "last" else 0, dtype=torch.int64)
        if self.variable_text_length and text.device.type == "cpu" and has_values(text):  # elsewhere one would wait
            text = text[:, : int(row.max()) + 1]
        mask = self._mask(text)
        x = self.transformer.forward_row(self._embed(text), row, causal=self.causal and mask is None, mask=mask)
        return self._project(x)


def _projection(config: ClipTextConfig, embed_dim: int) -> nn.Parameter | nn.Linear | None:
    if config.proj_type == "none":
        return None
    std = config.width**-0.5
    if not config.proj_bias:
        return nn.Parameter(std * torch.randn(config.width, embed_dim))
    linear = nn.Linear(config.width, embed_dim)
    nn.init.normal_(linear.weight, std=std)
    nn.init.zeros_(linear.bias)
    return linear
