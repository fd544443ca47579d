"""timm backbones as vision towers.

Parameter names are those of published checkpoints: `trunk.*`, then `head.*`. Backbones differ in what they give
beside the feature. The tower claims all of it; a `CapabilityError` names the backbone that cannot.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from timm.layers.attention_pool2d import AttentionPool2d, RotAttentionPool2d
from timm.layers.mlp import Mlp
from timm.models import group_parameters
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zoo_core.errors import CapabilityError
from zoo_core.interfaces import LayerGroup, VisionTower
from zoo_core.nn.inference_forms import InferenceForm, channels_last, recast
from zoo_core.nn.intermediates import BlockOutputs, IntermediatesOptions
from zoo_core.nn.position_embedding import PositionTable
from zoo_timm.backbone import build_trunk, output_shape, refuse
from zoo_timm.config import ATTENTION_POOLS, TimmConfig

HEAD_WIDTH = 64
"""Channels of a head of the attention pools."""


class TimmTower(VisionTower):
    """A timm backbone and, where the config asks for one, a pool or a projection behind it.

    Args:
        config: which backbone, and its options.
        embed_dim: width of the pooled feature.

    Raises:
        ConfigError: timm has no such backbone, it does not take an option or the image size, or what comes out of
            it is not `embed_dim` wide.
    """

    def __init__(self, config: TimmConfig, *, embed_dim: int) -> None:
        super().__init__()
        self.name = config.name
        self.image_size = config.image_size
        self.patch_dropout = config.patch_dropout
        self.output_dim = embed_dim
        self.trunk = build_trunk(config, embed_dim)
        self.head = _head(config, self.trunk, embed_dim)

    def forward(self, image: Tensor) -> Tensor:
        """Return features `[B, embed_dim]` of images `[B, 3, H, W]`."""
        if image.shape[0] == 0:  # several backbones reshape to [B, -1, ...], which torch cannot resolve for no images
            return image.new_zeros(0, self.output_dim)
        return self.head(self.trunk(image))

    def forward_tokens(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return features `[B, embed_dim]` and the normed tokens, or cells of the last map, `[B, N, C]`.

        Class tokens and registers, where the backbone counts them, are no part of the tokens.

        Raises:
            CapabilityError: the backbone ends in several maps.
        """
        x = self.trunk.forward_features(image)
        if not isinstance(x, Tensor):
            raise CapabilityError(f"timm backbone '{self.name}' ends in several maps, which are no tokens")
        if x.ndim == 4:
            tokens = x.flatten(1, 2) if _channels_last(self.trunk) else x.flatten(2).transpose(1, 2)
        else:
            tokens = x[:, getattr(self.trunk, "num_prefix_tokens", 0) :]
        return self.head(self.trunk.forward_head(x)), tokens

    def num_blocks(self) -> int:
        """Return how many outputs the backbone can give: of blocks, or of stages.

        Raises:
            CapabilityError: it gives none.
        """
        if not hasattr(self.trunk, "forward_intermediates"):
            raise CapabilityError(f"timm backbone '{self.name}' gives no intermediates")
        return len(self.trunk.feature_info)

    def run_blocks(self, image: Tensor, options: IntermediatesOptions, /) -> BlockOutputs:
        """Return what the backbone's own `forward_intermediates` gives; see `BlockwiseModule.run_blocks`.

        A backbone without class tokens or registers gives no `image_intermediates_prefix`. Norms are applied as timm
        does: to each output where all have one width, to the last alone where stages differ.

        Raises:
            CapabilityError: the backbone does not return its prefix tokens.
        """
        arguments = {
            "indices": list(options.numbers) or 1,  # timm takes no empty list
            "stop_early": options.stop_early,
            "norm": options.normalize,
            "intermediates_only": not options.features,
        }
        prefix = options.extra_tokens and getattr(self.trunk, "num_prefix_tokens", 0) > 0
        if prefix:
            if "return_prefix_tokens" not in inspect.signature(self.trunk.forward_intermediates).parameters:
                raise CapabilityError(f"timm backbone '{self.name}' gives its intermediates without its prefix tokens")
            arguments["return_prefix_tokens"] = True
        result = self._trunk_intermediates(image, arguments)
        outputs: list[Any] = (result[1] if options.features else result)[: len(options.numbers)]
        extra: dict[str, Any] = {}
        if prefix:
            extra["intermediates_prefix"] = [tokens for _, tokens in outputs]
            outputs = [patches for patches, _ in outputs]
        features = self.forward_head(result[0], image) if options.features else None
        return BlockOutputs(outputs, extra, features)

    def forward_head(self, x: Tensor, image: Tensor, /) -> Tensor:
        """Return features `[B, embed_dim]` of what the backbone gives before its own head."""
        return self.head(self.trunk.forward_head(x))

    def layer_groups(self) -> Sequence[LayerGroup]:
        """Return timm's own groups of the backbone, and the head where it has weights."""
        if not hasattr(self.trunk, "group_matcher"):
            return [[self]]
        numbered = cast("dict[int, list[str]]", group_parameters(self.trunk, self.trunk.group_matcher()))
        groups: list[LayerGroup] = []
        for _, names in sorted(numbered.items()):
            parts: dict[nn.Module | nn.Parameter, None] = {}
            for name in names:
                owner = self.trunk.get_submodule(name.rpartition(".")[0])
                # a batch norm is locked whole, with its statistics
                parts[owner if isinstance(owner, _BatchNorm) else self.trunk.get_parameter(name)] = None
            groups.append(list(parts))
        return [*groups, [self.head]] if list(self.head.parameters()) else groups

    def lock(self, unlocked_groups: int = 0, *, freeze_norms: bool = True, freeze_bn_stats: bool = False) -> None:
        """Make parameters untrainable but for those of the last groups; see `Tower.lock`.

        Raises:
            CapabilityError: some groups are asked for, but timm divides this backbone into none.
        """
        if unlocked_groups > 0 and not hasattr(self.trunk, "group_matcher"):
            raise CapabilityError(f"timm backbone '{self.name}' has no layer groups: it can only be locked whole")
        super().lock(unlocked_groups, freeze_norms=freeze_norms, freeze_bn_stats=freeze_bn_stats)

    def inference_forms(self) -> Iterable[InferenceForm]:
        """Offer the tower whose convolutions have channels last."""
        if type(self) is TimmTower and any(isinstance(layer, nn.Conv2d) for layer in self.trunk.modules()):
            yield InferenceForm("channels last", lambda: channels_last(recast(self, ChannelsLastTower)))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the backbone's blocks in the backward pass.

        Raises:
            CapabilityError: the backbone cannot.
        """
        try:
            self.trunk.set_grad_checkpointing(enable)
        except (AssertionError, AttributeError):
            if enable:
                raise CapabilityError(f"timm backbone '{self.name}' has no gradient checkpointing") from None

    def no_weight_decay(self) -> set[str]:
        """Return the names that timm gives, as far as this backbone has them."""
        names: set[str] = self.trunk.no_weight_decay() if hasattr(self.trunk, "no_weight_decay") else set()
        return {f"trunk.{name}" for name, _ in self.trunk.named_parameters() if name in names}

    def position_tables(self) -> Mapping[str, PositionTable]:
        """Return the positions of the backbone's patches and of the attention pool, where they are learned tables."""
        tables: dict[str, PositionTable] = {}
        positions, patches = getattr(self.trunk, "pos_embed", None), getattr(self.trunk, "patch_embed", None)
        grid: Any = getattr(patches, "grid_size", None)
        if isinstance(positions, nn.Parameter) and positions.ndim == 3 and grid is not None:
            rows, columns = cast("tuple[int, int]", grid)
            extra = positions.shape[1] - rows * columns
            if extra >= 0:
                tables["trunk.pos_embed"] = PositionTable((rows, columns), prefix=extra)
        pool: Any = getattr(self.head, "pool", None)
        if isinstance(pool, AttentionPool2d) and isinstance(pool.pos_embed, nn.Parameter):
            tables["head.pool.pos_embed"] = PositionTable(cast("tuple[int, int]", pool.feat_size), prefix=1)
        return tables

    def _trunk_intermediates(self, image: Tensor, arguments: dict[str, Any]) -> Any:
        return self.trunk.forward_intermediates(image, output_fmt="NCHW", **arguments)


class ChannelsLastTower(TimmTower):
    """A timm backbone whose images and maps have channels last."""

    def forward(self, image: Tensor) -> Tensor:
        """Return features `[B, embed_dim]` of images `[B, 3, H, W]`."""
        return super().forward(image.contiguous(memory_format=torch.channels_last))


def _head(config: TimmConfig, trunk: nn.Module, embed_dim: int) -> nn.Sequential:
    """Return what stands behind a backbone: nothing, a pool, a projection, or both."""
    shape = output_shape(trunk, config)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if config.pool in ATTENTION_POOLS:
        layers["pool"] = _attention_pool(config, shape, embed_dim, channels_last=_channels_last(trunk))
        width = embed_dim
    elif len(shape) == 2:
        width = shape[1]
    else:
        raise refuse("pool", f"backbone '{config.name}' gives {list(shape[1:])} for an image, not one feature; set one")
    if config.proj == "linear":
        layers["drop"] = nn.Dropout(config.drop)
        layers["proj"] = nn.Linear(width, embed_dim, bias=config.proj_bias)
    elif config.proj == "mlp":
        layers["mlp"] = Mlp(width, 2 * embed_dim, embed_dim, drop=(config.drop, 0), bias=(True, config.proj_bias))
    elif width != embed_dim:
        raise refuse(
            "proj",
            f"with '{config.proj}' the feature of backbone '{config.name}' is {width} wide, "
            f"but embed_dim is {embed_dim}; write proj: linear, or embed_dim: {width}",
        )
    return nn.Sequential(layers)


def _attention_pool(
    config: TimmConfig, shape: tuple[int, ...], embed_dim: int, *, channels_last: bool
) -> AttentionPool2d | RotAttentionPool2d:
    if len(shape) != 4 or channels_last:
        raise refuse(
            "pool",
            f"'{config.pool}' attends over a map [C, h, w], but backbone '{config.name}' gives {list(shape[1:])}",
        )
    _, channels, height, width = shape
    if channels % HEAD_WIDTH:
        raise refuse(
            "pool", f"'{config.pool}' has heads of {HEAD_WIDTH} channels, but '{config.name}' gives {channels}"
        )
    if config.pool == "abs_attn":
        return AttentionPool2d(channels, feat_size=(height, width), out_features=embed_dim)
    return RotAttentionPool2d(channels, out_features=embed_dim)


def _channels_last(trunk: nn.Module) -> bool:
    return getattr(trunk, "output_fmt", "NCHW") == "NHWC"
