"""timm's NaFlexViT as a vision tower for patch batches.

NaFlex is of SigLIP 2 (Tschannen et al. 2025, https://arxiv.org/abs/2502.14786), after NaViT (Dehghani et al. 2023,
https://arxiv.org/abs/2307.06304). Some releases of timm silently ignore options that they do not know, so options are
checked against the fields of timm's config here.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import timm
import torch
from timm.models.naflexvit import NaFlexVit, NaFlexVitCfg
from torch import Tensor

from zoo_core.errors import InputError, did_you_mean
from zoo_core.images.patches import PATCH_KEYS, PatchBatch
from zoo_core.nn.intermediates import BlockOutputs, IntermediatesOptions
from zoo_timm.backbone import refuse
from zoo_timm.config import NaFlexConfig
from zoo_timm.tower import TimmTower


class NaFlexTower(TimmTower):
    """A NaFlexViT of timm and, where the config asks for one, a projection behind it.

    Every method takes images `[B, 3, H, W]` of whole patches, or a patch batch (see `zoo_core.images.patches`).

    Args:
        config: which backbone, and its options.
        embed_dim: width of the pooled feature.

    Raises:
        ConfigError: timm has no such backbone, it takes no patches, lacks an option, or what comes out of it is not
            `embed_dim` wide.
    """

    variable_image_size = True

    def __init__(self, config: NaFlexConfig, *, embed_dim: int) -> None:
        options = {field.name for field in fields(NaFlexVitCfg)}
        for option in config.kwargs:
            if option not in options:
                message = f"NaFlexVit of timm {timm.__version__} takes no '{option}'"
                raise refuse(f"kwargs.{option}", message + did_you_mean(option, options))
        super().__init__(config, embed_dim=embed_dim)
        if not isinstance(self.trunk, NaFlexVit):
            raise refuse("name", f"backbone '{config.name}' takes no patches; use it with tower: timm")
        if self.trunk.global_pool == "token" and not self.trunk.has_class_token:  # the first patch, in older timm
            raise refuse("pool", f"'token' needs a class token, which '{config.name}' lacks; set kwargs.class_token")
        self.image_patches = config.patch_size

    def forward(self, image: Tensor | PatchBatch) -> Tensor:
        """Return features `[B, embed_dim]`; how much padding a batch has changes none."""
        if isinstance(image, Tensor):
            return super().forward(image)
        if not len(image["patches"]):
            return image["patches"].new_zeros(0, self.output_dim)
        return self.head(self.trunk({key: image[key] for key in PATCH_KEYS}))

    def forward_tokens(self, image: Tensor | PatchBatch) -> tuple[Tensor, Tensor]:
        """Return features `[B, embed_dim]` and the normed tokens of the patches `[B, N, C]`.

        Raises:
            InputError: a batch has padding, which would pass for tokens.
        """
        if isinstance(image, Tensor):
            return super().forward_tokens(image)
        if not bool(image["patch_valid"].all()):
            raise InputError(
                "tokens of padding would pass for those of pictures: give pictures of one number of patches"
            )
        output = self.trunk.forward_features(*(image[key] for key in PATCH_KEYS))
        return self.head(self.trunk.forward_head(**output)), output["patches"][:, self.trunk.num_prefix_tokens :]

    def patch_grid(self, image: Tensor | PatchBatch, /) -> tuple[int, int]:
        """Return rows and columns of a patch batch; maps of images come from timm.

        Raises:
            InputError: pictures have different grids.
        """
        assert not isinstance(image, Tensor)
        ends = torch.unique(image["patch_coord"].amax(dim=1), dim=0)  # [grids, 2]
        if len(ends) != 1 or not bool(image["patch_valid"].all()):
            raise InputError("pictures of different grids make no map [B, C, h, w]: ask for image_output_fmt='NLC'")
        rows, columns = ends[0].tolist()
        return rows + 1, columns + 1

    def run_blocks(self, image: Tensor | PatchBatch, options: IntermediatesOptions, /) -> BlockOutputs:
        """Return the outputs of blocks; see `BlockwiseModule.run_blocks`.

        Of a patch batch, also `image_patch_coord` `[B, N, 2]` and `image_patch_valid` `[B, N]`, as they came in. Tokens
        of padding are zero.
        """
        blocks = super().run_blocks(image, options)  # pyright: ignore[reportArgumentType]
        if isinstance(image, Tensor):
            return blocks
        padding = ~image["patch_valid"][..., None]  # [B, N, 1]
        outputs = [tokens.masked_fill(padding, 0) for tokens in blocks.outputs]
        entries = {key: image[key] for key in PATCH_KEYS[1:]}
        return BlockOutputs(outputs, {**blocks.extra, **entries}, blocks.features)

    def forward_head(self, x: Tensor, image: Tensor | PatchBatch, /) -> Tensor:
        """Return features `[B, embed_dim]`; padding has no part in them."""
        if isinstance(image, Tensor):
            return super().forward_head(x, image)
        return self.head(self.trunk.forward_head(x, patch_valid=image["patch_valid"]))

    def _trunk_intermediates(self, image: Tensor | PatchBatch, arguments: dict[str, Any]) -> Any:
        if isinstance(image, Tensor):
            return super()._trunk_intermediates(image, arguments)
        patches, coord, valid = (image[key] for key in PATCH_KEYS)
        return self.trunk.forward_intermediates(
            patches, patch_coord=coord, patch_valid=valid, output_fmt="NLC", **arguments
        )
