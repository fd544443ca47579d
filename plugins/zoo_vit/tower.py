"""CLIP's vision transformer (Dosovitskiy et al. 2020; Radford et al. 2021).

CLIP adds to the paper a norm before the blocks, leaves out the bias of the patch projection, and takes the class
token's output, normed and projected, as the feature. Other poolings do not remove the class token. Parameter names are
those of published CLIP checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from zoo_core.errors import CapabilityError
from zoo_core.interfaces import LayerGroup, VisionTower
from zoo_core.nn.inference_forms import InferenceForm, recast
from zoo_core.nn.pooling import AttentionalPooler
from zoo_core.nn.position_embedding import PositionTable, sin_cos_2d
from zoo_core.nn.transformer import LayerNorm, Transformer
from zoo_vit.config import AttentionalPool, PoolType, ViTConfig


class VisionTransformer(VisionTower):
    """A vision transformer.

    Args:
        config: sizes and options.
        embed_dim: width of the pooled feature.
    """

    num_prefix_tokens = 1
    positional_embedding: Tensor

    def __init__(self, config: ViTConfig, *, embed_dim: int) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.patch_size = config.patch_size
        self.grid_size = config.grid
        self.patch_dropout = config.patch_dropout
        self.pool_type: PoolType = config.pool_type
        self.final_ln_after_pool = config.final_ln_after_pool
        self.attentional_pool: AttentionalPool | None = config.attentional_pool
        self.output_dim = embed_dim
        rows, columns = config.grid
        width, scale = config.width, config.width**-0.5
        self.conv1 = nn.Conv2d(3, width, kernel_size=config.patch_size, stride=config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        if config.pos_embed == "learnable":
            self.positional_embedding = nn.Parameter(scale * torch.randn(rows * columns + 1, width))
        else:  # a buffer: nothing that trains or unlocks parameters may move it
            fixed = torch.cat([torch.zeros(1, width), sin_cos_2d(rows, columns, width)])
            self.register_buffer("positional_embedding", fixed)
        self.ln_pre = LayerNorm(width, eps=config.norm_eps) if config.ln_pre else nn.Identity()
        self.transformer = Transformer(
            width,
            config.layers,
            width // config.head_width,
            mlp_ratio=config.mlp_ratio,
            activation=config.activation,
            ls_init_value=config.ls_init_value,
            norm_eps=config.norm_eps,
            options=config.block,
        )
        self.attn_pool, self.attn_pool_contrastive = _attentional_pools(config, embed_dim)
        pooled = width if self.attn_pool is None else embed_dim
        self.ln_post = LayerNorm(embed_dim if self.attentional_pool == "single" else width, eps=config.norm_eps)
        self.proj = nn.Parameter(scale * torch.randn(pooled, embed_dim))

    def forward(self, image: Tensor) -> Tensor:
        """Return features `[B, embed_dim]` of images `[B, 3, H, W]`."""
        x = self._embed(image)  # [B, 1 + N, width]
        x = self.transformer(x)
        return self._pool(x, with_tokens=False)[0]

    def forward_tokens(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return features `[B, embed_dim]` and tokens.

        These are the patches `[B, N, width]`, normed unless `final_ln_after_pool`; after attentional pooling they are
        what the queries gave `[B, queries, embed_dim]`, but for `single` without the first, and normed there.
        """
        return self._pool(self.transformer(self._embed(image)), with_tokens=True)

    def _embed(self, image: Tensor) -> Tensor:
        x = self.conv1(image).flatten(2).transpose(1, 2)  # [B, N, width]
        class_token = self.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        x = torch.cat([class_token, x], dim=1)  # [B, 1 + N, width]
        x = x + self.positional_embedding.to(x.dtype)
        if self.training and self.patch_dropout > 0:  # another share of the patches for each image
            patches = x.shape[1] - 1
            keep = max(1, int(patches * (1 - self.patch_dropout)))
            chosen = torch.rand(len(x), patches, device=x.device).topk(keep).indices + 1  # [B, K], the class token is 0
            x = torch.cat([x[:, :1], x.gather(1, chosen[..., None].expand(-1, -1, x.shape[2]))], dim=1)
        return self.ln_pre(x)

    def _pool(self, x: Tensor, *, with_tokens: bool) -> tuple[Tensor, Tensor]:
        """Return features `[B, embed_dim]` and the tokens of `forward_tokens` (any tokens without `with_tokens`)."""
        match self.attentional_pool, self.pool_type:  # x: [B, 1 + N, width]
            case None, "tok" if not with_tokens or self.final_ln_after_pool:
                tokens = x[:, 1:]
                pooled = self.ln_post(x[:, 0])  # the norms of the other tokens would be thrown away
            case None, "avg" if self.final_ln_after_pool:
                tokens = x[:, 1:]
                pooled = self.ln_post(tokens.mean(dim=1))
            case None | "single", pool_type:
                x = self.ln_post(x if self.attn_pool is None else self.attn_pool(x))  # or [B, queries, embed_dim]
                tokens = x[:, 1:]
                pooled = x[:, 0] if pool_type == "tok" else tokens.mean(dim=1)
            case "parallel", _:
                assert self.attn_pool is not None and self.attn_pool_contrastive is not None
                x = self.ln_post(x)
                tokens = self.attn_pool(x) if with_tokens else x  # [B, queries, embed_dim]
                pooled = self.attn_pool_contrastive(x)[:, 0]
            case "cascade", _:
                assert self.attn_pool is not None and self.attn_pool_contrastive is not None
                tokens = self.attn_pool(self.ln_post(x))  # [B, queries, embed_dim]
                pooled = self.attn_pool_contrastive(tokens)[:, 0]
        return pooled @ self.proj, tokens

    def num_blocks(self) -> int:
        """Return the number of residual blocks."""
        return self.transformer.layers

    def forward_blocks(self, image: Tensor, /) -> Iterator[Tensor]:
        """Yield the output of each block, tokens `[B, 1 + N, width]`."""
        return self.transformer.forward_blocks(self._embed(image))

    def forward_head(self, x: Tensor, image: Tensor, /) -> Tensor:
        """Return features `[B, embed_dim]` of the last block's output."""
        return self._pool(x, with_tokens=False)[0]

    def final_norm(self) -> LayerNorm:
        """Return the norm of the blocks' width.

        Raises:
            CapabilityError: it stands behind the attentional pool and has the width of that.
        """
        normed, width = self.ln_post.normalized_shape[0], self.transformer.width
        if normed != width:
            raise CapabilityError(
                f"normalize_intermediates: the final norm stands after the attentional pool and takes {normed} "
                f"channels, the blocks give {width}; ask for intermediates without it"
            )
        return self.ln_post

    def patch_grid(self, image: Tensor, /) -> tuple[int, int]:
        """Return rows and columns of the patches of images."""
        return image.shape[2] // self.patch_size[0], image.shape[3] // self.patch_size[1]

    def layer_groups(self) -> Sequence[LayerGroup]:
        """Return the embedding, each block (the last with the pools and the final norm) and the projection."""
        *blocks, last = self.transformer.resblocks
        stem = [self.conv1, self.class_embedding, *self._learned_positions(), self.ln_pre]
        pools = [pool for pool in (self.attn_pool, self.attn_pool_contrastive) if pool is not None]
        return [stem, *([block] for block in blocks), [last, *pools, self.ln_post], [self.proj]]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass."""
        self.transformer.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Return the embeddings."""
        return {"class_embedding"} | ({"positional_embedding"} if self._learned_positions() else set())

    def position_tables(self) -> Mapping[str, PositionTable]:
        """Return the learned positions: the class token's, then those of the patches."""
        (height, width), (rows, columns) = self.image_size, self.patch_size
        table = PositionTable((height // rows, width // columns), prefix=1)
        return {"positional_embedding": table} if self._learned_positions() else {}

    def inference_forms(self) -> Iterable[InferenceForm]:
        """Offer the tower whose last block transforms the class token alone, where that token is the feature."""
        if type(self) is VisionTransformer and self.attn_pool is None and self.pool_type == "tok":
            yield InferenceForm("last block for the pooled token", lambda: recast(self, ClassTokenTransformer))

    def _learned_positions(self) -> list[nn.Parameter]:
        return [self.positional_embedding] if isinstance(self.positional_embedding, nn.Parameter) else []


class ClassTokenTransformer(VisionTransformer):
    """A vision transformer that leaves out what the class token of the last block does not see."""

    def forward(self, image: Tensor) -> Tensor:
        """Return features `[B, embed_dim]` of images `[B, 3, H, W]`."""
        x = self._embed(image)
        row = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
        return self.ln_post(self.transformer.forward_row(x, row)) @ self.proj


def _attentional_pools(config: ViTConfig, embed_dim: int) -> tuple[AttentionalPooler | None, AttentionalPooler | None]:
    """Return the pool of the tokens and the one of the feature, where the config has them."""
    if config.attentional_pool is None:
        return None, None
    heads, queries, eps = config.attn_pooler_heads, config.attn_pooler_queries, config.norm_eps
    tokens = AttentionalPooler(embed_dim, config.width, heads, queries, eps)
    if config.attentional_pool == "single":
        return tokens, None
    context = config.width if config.attentional_pool == "parallel" else embed_dim
    return tokens, AttentionalPooler(embed_dim, context, heads, 1, eps)
