"""The vision transformer (Dosovitskiy et al. 2020) in the shape that CLIP gave it (Radford et al. 2021).

Beside the paper: a norm before the blocks, no bias in the patch projection, and the class token's output, normed
and projected, as the feature. Parameter names are those of published CLIP checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo_core.errors import InputError
from zoo_core.interfaces import LayerGroup, VisionTower
from zoo_core.transformer import LayerNorm, Transformer, take_indices
from zoo_vit.config import ViTConfig


class VisionTransformer(VisionTower):
    """A vision transformer whose pooled feature is its class token.

    Args:
        config: sizes and options.
        embed_dim: width of the pooled feature.
    """

    def __init__(self, config: ViTConfig, *, embed_dim: int) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.patch_size = config.patch_size
        self.patch_dropout = config.patch_dropout
        self.output_dim = embed_dim
        rows, columns = config.grid
        width, scale = config.width, config.width**-0.5
        self.conv1 = nn.Conv2d(3, width, kernel_size=config.patch_size, stride=config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(rows * columns + 1, width))
        self.ln_pre = LayerNorm(width, eps=config.norm_eps)
        self.transformer = Transformer(
            width,
            config.layers,
            width // config.head_width,
            mlp_ratio=config.mlp_ratio,
            activation=config.activation,
            ls_init_value=config.ls_init_value,
            norm_eps=config.norm_eps,
        )
        self.ln_post = LayerNorm(width, eps=config.norm_eps)
        self.proj = nn.Parameter(scale * torch.randn(width, embed_dim))

    def forward(self, image: Tensor) -> Tensor:
        """Return features `[B, embed_dim]` of images `[B, 3, H, W]`."""
        return self._pool(self.transformer(self._embed(image)))

    def forward_tokens(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return features `[B, embed_dim]` and the normed patch tokens `[B, N, width]`."""
        x = self.transformer(self._embed(image))
        return self._pool(x), self.ln_post(x[:, 1:])

    def forward_intermediates(
        self,
        image: Tensor,
        *,
        indices: int | Sequence[int] | None = None,
        stop_early: bool = False,
        normalize_intermediates: bool = False,
        intermediates_only: bool = False,
        output_fmt: str = "NCHW",
        output_extra_tokens: bool = False,
    ) -> dict[str, Any]:
        """Return the outputs of blocks as maps or tokens; see `VisionTower.forward_intermediates`."""
        if output_fmt not in ("NCHW", "NLC"):
            raise InputError(f"image_output_fmt must be 'NCHW' or 'NLC', found {output_fmt!r}")
        if self._drops_patches():
            raise InputError("intermediates need every patch: call eval(), or build with vision.patch_dropout=0")
        x, kept = self.transformer.forward_intermediates(
            self._embed(image),
            take_indices(indices, len(self.transformer.resblocks)),
            stop_early=stop_early and intermediates_only,
        )
        if normalize_intermediates:
            kept = [self.ln_post(tokens) for tokens in kept]
        patches = [tokens[:, 1:] for tokens in kept]
        output: dict[str, Any] = {"image_intermediates": patches}
        if output_fmt == "NCHW":
            rows, columns = image.shape[2] // self.patch_size[0], image.shape[3] // self.patch_size[1]
            output["image_intermediates"] = [
                tokens.transpose(1, 2).unflatten(2, (rows, columns)).contiguous() for tokens in patches
            ]
        if output_extra_tokens:
            output["image_intermediates_prefix"] = [tokens[:, :1] for tokens in kept]
        if not intermediates_only:
            output["image_features"] = self._pool(x)
        return output

    def layer_groups(self) -> Sequence[LayerGroup]:
        """Return the embedding, each block (the last with the final norm) and the projection."""
        *blocks, last = self.transformer.resblocks
        stem = [self.conv1, self.class_embedding, self.positional_embedding, self.ln_pre]
        return [stem, *([block] for block in blocks), [last, self.ln_post], [self.proj]]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass."""
        self.transformer.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Return the embeddings."""
        return {"positional_embedding", "class_embedding"}

    def _embed(self, image: Tensor) -> Tensor:
        x = self.conv1(image).flatten(2).transpose(1, 2)  # [B, N, C]
        x = torch.cat([self.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1), x], dim=1)
        x = x + self.positional_embedding.to(x.dtype)
        if self._drops_patches():
            x = self._keep_some(x)
        return self.ln_pre(x)

    def _drops_patches(self) -> bool:
        return self.training and self.patch_dropout > 0

    def _keep_some(self, x: Tensor) -> Tensor:
        """Keep the class token and a random share of the patches, another for each image."""
        batch, tokens, width = x.shape
        keep = max(1, int((tokens - 1) * (1 - self.patch_dropout)))
        chosen = torch.rand(batch, tokens - 1, device=x.device).topk(keep).indices + 1  # [B, K], the class token is 0
        patches = x.gather(1, chosen[..., None].expand(-1, -1, width))
        return torch.cat([x[:, :1], patches], dim=1)

    def _pool(self, x: Tensor) -> Tensor:
        return self.ln_post(x[:, 0]) @ self.proj
