"""CLIP's modified ResNet (He et al. 2016; Radford et al. 2021).

It differs from the paper in a stem of three convolutions, strides that are average pools (Zhang 2019), and an
attention pooling whose only query is the global average. Parameter names are those of published CLIP checkpoints.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.checkpoint import checkpoint

from zoo_core.errors import InputError
from zoo_core.interfaces import LayerGroup, VisionTower
from zoo_core.nn.attention import split_heads
from zoo_core.nn.inference_forms import InferenceForm, channels_last, recast
from zoo_core.nn.position_embedding import PositionTable, resample
from zoo_resnet.config import EXPANSION, REDUCTION, ModifiedResNetConfig

STAGES = 5
"""Feature maps that a forward pass goes through: the stem's and one for each of the four stages of blocks."""


class Bottleneck(nn.Module):
    """Three convolutions added to their input; a stride is an average pool after the second of them.

    Args:
        inputs: channels in.
        width: channels inside; `4 * width` come out.
        stride: by how much the map shrinks.
        first: whether the shortcut needs a convolution, because channels or size change.
    """

    def __init__(self, inputs: int, width: int, stride: int, *, first: bool) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.avgpool = _average_pool(stride)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if first:
            convolution = nn.Conv2d(inputs, outputs, 1, bias=False)
            # "0" and "1" are the names in published checkpoints, where the pool came as an afterthought
            parts = {"-1": _average_pool(stride), "0": convolution, "1": nn.BatchNorm2d(outputs)}
            self.downsample = nn.Sequential(OrderedDict(parts))
        nn.init.zeros_(self.bn3.weight)  # a block starts as its shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Transform a map `[B, inputs, h, w]` into `[B, 4 * width, h / stride, w / stride]`."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        x = self.bn3(self.conv3(self.avgpool(x)))
        return F.relu(x.add_(shortcut), inplace=True)


class AttentionPool(nn.Module):
    """Pools a map by attention; the query is the mean of the map, keys and values are the mean and every cell.

    Args:
        grid: rows and columns of the map that the positions belong to.
        width: channels of the map.
        heads: number of heads; divides `width`.
        embed_dim: channels of the pooled feature.
    """

    def __init__(self, grid: tuple[int, int], width: int, heads: int, embed_dim: int) -> None:
        super().__init__()
        self.grid = grid
        self.heads = self.num_heads = heads
        std = width**-0.5
        self.positional_embedding = nn.Parameter(std * torch.randn(grid[0] * grid[1] + 1, width))
        self.k_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, embed_dim)
        for layer in (self.q_proj, self.k_proj, self.v_proj, self.c_proj):
            nn.init.normal_(layer.weight, std=std)

    def forward(self, x: Tensor) -> Tensor:
        """Return features `[B, embed_dim]` of a map `[B, C, h, w]`; positions are resampled to its size."""
        positions, grid = self.positional_embedding, (x.shape[2], x.shape[3])
        if grid != self.grid:  # the position of the mean stays, whatever the size
            old, new = PositionTable(self.grid, prefix=1), PositionTable(grid, prefix=1)
            positions = resample(positions, old, new, "bicubic")
        x = x.flatten(2).transpose(1, 2)  # [B, N, C]
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + positions.to(x.dtype)  # [B, 1 + N, C]
        (query,) = split_heads(self.q_proj(x[:, :1]), self.heads, 1)  # [B, H, 1, C / H]
        (key,) = split_heads(self.k_proj(x), self.heads, 1)  # [B, H, 1 + N, C / H]
        (value,) = split_heads(self.v_proj(x), self.heads, 1)
        return self.c_proj(F.scaled_dot_product_attention(query, key, value).flatten(1))


class ModifiedResNet(VisionTower):
    """A ResNet whose feature is pooled by attention.

    Images of other sizes than `config.image_size` are taken where 32 divides both sides: the positions of the
    attention pooling are then resampled (bicubic, with antialiasing), and the rest is convolutions.

    Args:
        config: sizes.
        embed_dim: width of the pooled feature.
    """

    variable_image_size = True

    def __init__(self, config: ModifiedResNetConfig, *, embed_dim: int) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.output_dim = embed_dim
        self.grad_checkpointing = False
        half, width = config.width // 2, config.width
        self.conv1 = nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.avgpool = _average_pool(2)
        inner, depth = config.stage_widths, config.layers
        self.layer1 = _stage(width, inner[0], depth[0], stride=1)
        self.layer2 = _stage(EXPANSION * inner[0], inner[1], depth[1], stride=2)
        self.layer3 = _stage(EXPANSION * inner[1], inner[2], depth[2], stride=2)
        self.layer4 = _stage(EXPANSION * inner[2], inner[3], depth[3], stride=2)
        self.attnpool = AttentionPool(config.grid, config.pool_width, config.pool_width // config.head_width, embed_dim)

    def forward(self, image: Tensor) -> Tensor:
        """Return features `[B, embed_dim]` of images `[B, 3, H, W]`.

        Raises:
            InputError: 32 does not divide the height or the width.
        """
        x = self._trunk(image)  # [B, 32 * width, H / 32, W / 32]
        return self.attnpool(x)

    def _trunk(self, image: Tensor) -> Tensor:
        """Return the last map `[B, 32 * width, H / 32, W / 32]`."""
        _check_size(image)
        x = image
        for parts in self._stages():
            x = self._run(parts, x)
        return x

    def _stem(self, x: Tensor) -> Tensor:
        """Return the map `[B, width, H / 4, W / 4]` of images."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        x = F.relu(self.bn3(self.conv3(x)), inplace=True)
        return self.avgpool(x)

    def _stages(self) -> Sequence[Sequence[Callable[[Tensor], Tensor]]]:
        """Return the stem and the blocks of each stage."""
        return [[self._stem], *(list(stage) for stage in (self.layer1, self.layer2, self.layer3, self.layer4))]

    def _run(self, parts: Sequence[Callable[[Tensor], Tensor]], x: Tensor) -> Tensor:
        for part in parts:
            if not (self.grad_checkpointing and torch.is_grad_enabled()):
                x = part(x)
            elif torch.compiler.is_compiling():  # which recomputes values and not side effects, and takes no context_fn
                x = checkpoint(part, x, use_reentrant=False)
            else:
                x = checkpoint(part, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _uncounted(self)))
        return x

    def forward_tokens(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return features `[B, embed_dim]` and the cells of the last map `[B, N, 32 * width]`, row by row."""
        x = self._trunk(image)
        return self.attnpool(x), x.flatten(2).transpose(1, 2)

    def num_blocks(self) -> int:
        """Return the number of maps: that of the stem, and those of the four stages."""
        return STAGES

    def forward_blocks(self, image: Tensor, /) -> Iterator[Tensor]:
        """Yield the maps of the stem and of the four stages, which differ in size and channels."""
        _check_size(image)
        x = image
        for parts in self._stages():
            x = self._run(parts, x)
            yield x

    def forward_head(self, x: Tensor, image: Tensor, /) -> Tensor:
        """Return features `[B, embed_dim]` of the last map."""
        return self.attnpool(x)

    def final_norm(self) -> NoReturn:
        """Refuse: each map has been normed inside its last block.

        Raises:
            InputError: always.
        """
        raise InputError(
            "normalize_intermediates: a modified-resnet has no final norm to apply; leave it out, or ask for "
            "the text's intermediates alone"
        )

    def layer_groups(self) -> Sequence[LayerGroup]:
        """Return the stem, each of the four stages and the attention pooling."""
        stem = [self.conv1, self.bn1, self.conv2, self.bn2, self.conv3, self.bn3]
        return [stem, [self.layer1], [self.layer2], [self.layer3], [self.layer4], [self.attnpool]]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the stem and each block in the backward pass; running statistics move once all the same."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Return the positions."""
        return {"attnpool.positional_embedding"}

    def position_tables(self) -> Mapping[str, PositionTable]:
        """Return the positions of the attention pool: that of the mean, then those of the cells."""
        return {"attnpool.positional_embedding": PositionTable(self.attnpool.grid, prefix=1)}

    def inference_forms(self) -> Iterable[InferenceForm]:
        """Offer the tower whose batch norms are part of its convolutions, which have channels last."""
        if type(self) is ModifiedResNet:
            yield InferenceForm("folded batch norms, channels last", lambda: _folded(self))


class FoldedResNet(ModifiedResNet):
    """A ResNet without batch norms, whose maps have channels last."""

    def _stem(self, x: Tensor) -> Tensor:
        return super()._stem(x.contiguous(memory_format=torch.channels_last))


def _folded(tower: ModifiedResNet) -> FoldedResNet:
    form = recast(tower, FoldedResNet)
    for part in form.modules():
        pairs = [("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("0", "1")]
        for convolution, norm in pairs:
            if isinstance(getattr(part, norm, None), nn.BatchNorm2d):
                setattr(part, convolution, fuse_conv_bn_eval(getattr(part, convolution), getattr(part, norm)))
                setattr(part, norm, nn.Identity())
    return channels_last(form)


@contextmanager
def _uncounted(tower: nn.Module) -> Generator[None]:
    """Let batch norms in training normalise by the batch without moving their running statistics.

    A batch that is recomputed for the backward pass would otherwise count twice.
    """
    norms = [module for module in tower.modules() if isinstance(module, _BatchNorm) and module.training]
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, momentum, count in before:
            norm.momentum, norm.num_batches_tracked = momentum, count


def _stage(inputs: int, width: int, depth: int, *, stride: int) -> nn.Sequential:
    """Return the blocks of a stage; the first changes channels and size."""
    first = Bottleneck(inputs, width, stride, first=True)
    rest = (Bottleneck(EXPANSION * width, width, 1, first=False) for _ in range(depth - 1))
    return nn.Sequential(first, *rest)


def _average_pool(stride: int) -> nn.Module:
    return nn.AvgPool2d(stride) if stride > 1 else nn.Identity()


def _check_size(image: Tensor) -> None:
    height, width = image.shape[2:]
    if min(height, width) < REDUCTION or height % REDUCTION or width % REDUCTION:
        raise InputError(
            f"expected images whose height and width are multiples of {REDUCTION} pixels, found {height} x {width}"
        )
