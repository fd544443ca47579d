"""Towers for the tests of the test kit: two that keep every promise, and many that break one each."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zoo_core.config import Config, Size, VisionTowerConfig
from zoo_core.errors import InputError
from zoo_core.interfaces import VisionTower
from zoo_core.nn.intermediates import take_indices


class PlainConfig(VisionTowerConfig):
    tower: str = "plain"
    image_size: Size = (8, 8)

    def parameter_count(self, embed_dim: int) -> int | None:
        return None


class Plain(VisionTower):
    """A tower of one layer that claims nothing and keeps its promises."""

    def __init__(self, config: VisionTowerConfig, *, embed_dim: int) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.output_dim = embed_dim
        self.proj = nn.Linear(6, embed_dim)

    def forward(self, image: Tensor) -> Tensor:
        means = image.mean(dim=(2, 3))
        return self.proj(torch.cat([means, image.amax(dim=(2, 3))], dim=-1))


class Counting(PlainConfig):
    def parameter_count(self, embed_dim: int) -> int | None:
        return 3


class Misnamed(PlainConfig):
    tower: str = "other"


class Forgetful(PlainConfig):
    def data(self) -> dict[str, object]:
        return {"image_size": [9, 9]}


class Unplain(PlainConfig):
    def data(self) -> dict[str, object]:
        return {"image_size": torch.tensor(8)}


class OfNoKind(Config):
    tower: str = "plain"


class NoTower(nn.Linear):
    def __init__(self, config: object, *, embed_dim: int) -> None:
        super().__init__(1, embed_dim)


class Narrow(Plain):
    def __init__(self, config: VisionTowerConfig, *, embed_dim: int) -> None:
        super().__init__(config, embed_dim=embed_dim)
        self.output_dim = embed_dim + 1


class Resized(Plain):
    def __init__(self, config: VisionTowerConfig, *, embed_dim: int) -> None:
        super().__init__(config, embed_dim=embed_dim)
        self.image_size = (3, 3)


class Eager(Plain):
    def __init__(self, config: VisionTowerConfig, *, embed_dim: int) -> None:
        super().__init__(config, embed_dim=embed_dim)
        self.proj.weight = nn.Parameter(torch.zeros(embed_dim, 6, device="cpu"))


class Uninitialised(Plain):
    def __init__(self, config: VisionTowerConfig, *, embed_dim: int) -> None:
        super().__init__(config, embed_dim=embed_dim)
        self.proj.weight = nn.Parameter(torch.empty(embed_dim, 6))


class Unseeded(Plain):
    def __init__(self, config: VisionTowerConfig, *, embed_dim: int) -> None:
        super().__init__(config, embed_dim=embed_dim)
        self.register_buffer("noise", torch.tensor(int.from_bytes(os.urandom(4))))


class Meddling(Plain):
    def __init__(self, config: VisionTowerConfig, *, embed_dim: int) -> None:
        super().__init__(config, embed_dim=embed_dim)
        torch.set_float32_matmul_precision("medium")


class Flat(Plain):
    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image).flatten()


class Infinite(Plain):
    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image) / 0


class InPlace(Plain):
    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image.mul_(0.5))


class Dropping(Plain):
    def forward(self, image: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(image))


class Mixing(Plain):
    def forward(self, image: Tensor) -> Tensor:
        features = super().forward(image)
        return features + features.sum(dim=0)


class SinglePrecision(Plain):
    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image).float()


class Mismatched(Plain):
    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image.float())


class Tied(Plain):
    def __init__(self, config: VisionTowerConfig, *, embed_dim: int) -> None:
        super().__init__(config, embed_dim=embed_dim)
        self.again = self.proj


class HiddenState(Plain):
    def __init__(self, config: VisionTowerConfig, *, embed_dim: int) -> None:
        super().__init__(config, embed_dim=embed_dim)
        self.offset = torch.randn(embed_dim)

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image) + self.offset.to(image.dtype)


class ForgottenBySetstate(Plain):
    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__(state)
        self.proj = nn.Linear(6, self.output_dim)


class GivesTokens(Plain):
    def forward_tokens(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self(image), image.flatten(2)


class OtherFeatures(Plain):
    def forward_tokens(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self(image) + 1, image.flatten(2)


class WrongRefusal(Plain):
    def forward_tokens(self, image: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError("not yet")


class FeaturesOnly(Plain):
    def forward_intermediates(self, image: Tensor, **options: object) -> dict[str, object]:
        return {"image_features": self(image)}


class Diverging(Plain):
    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image) * (float("nan") if self.training else 1)


class TwiceGrouped(Plain):
    def layer_groups(self) -> list[list[nn.Parameter]]:
        return [[self.proj.bias], [self.proj.bias]]


class HalfGrouped(Plain):
    def __init__(self, config: VisionTowerConfig, *, embed_dim: int) -> None:
        super().__init__(config, embed_dim=embed_dim)
        self.scale = nn.Parameter(torch.ones(embed_dim))

    def layer_groups(self) -> list[list[nn.Parameter]]:
        return [[self.proj.bias], [self.proj.weight]]


class SilentCheckpointing(Plain):
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        pass


class SaysVariable(Plain):
    variable_image_size = True


class Capable(Plain):
    """A tower of two blocks that claims all that a vision tower can, and keeps it."""

    variable_image_size = True
    checkpointing = False

    def __init__(self, config: VisionTowerConfig, *, embed_dim: int) -> None:
        super().__init__(config, embed_dim=embed_dim)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 6, 1)) for before in (3, 6)
        )

    def maps(self, image: Tensor) -> list[Tensor]:
        maps = [image]
        for block in self.blocks:
            through = partial(checkpoint, block, use_reentrant=False) if self.checkpointing else block
            maps.append(through(maps[-1]))
        return maps[1:]

    def pool(self, last: Tensor) -> Tensor:
        return self.proj(last.mean(dim=(2, 3)))

    def forward(self, image: Tensor) -> Tensor:
        return self.pool(self.maps(image)[-1])

    def forward_tokens(self, image: Tensor) -> tuple[Tensor, Tensor]:
        last = self.maps(image)[-1]
        return self.pool(last), last.flatten(2).transpose(1, 2)

    def forward_intermediates(
        self,
        image: Tensor,
        *,
        indices: Any = None,
        intermediates_only: bool = False,
        output_fmt: str = "NCHW",
        **options: Any,
    ) -> dict[str, Any]:
        if output_fmt != "NCHW":
            raise InputError(f"image_output_fmt must be 'NCHW', found {output_fmt!r}")
        maps = self.maps(image)
        output: dict[str, Any] = {"image_intermediates": [maps[index] for index in take_indices(indices, 2)]}
        return output if intermediates_only else output | {"image_features": self.pool(maps[-1])}

    def layer_groups(self) -> list[list[nn.Module]]:
        return [*([block] for block in self.blocks), [self.proj]]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.checkpointing = enable


class FlatTokens(Capable):
    def forward_tokens(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self(image), image.flatten(1)


class OtherPooling(Capable):
    def forward_intermediates(self, image: Tensor, **options: Any) -> dict[str, Any]:
        output = super().forward_intermediates(image, **options)
        return {key: value * 2 if key == "image_features" else value for key, value in output.items()}


class AlwaysFeatures(Capable):
    def forward_intermediates(self, image: Tensor, **options: Any) -> dict[str, Any]:
        return super().forward_intermediates(image, **options | {"intermediates_only": False})


class AllBlocks(Capable):
    def forward_intermediates(self, image: Tensor, *, indices: Any = None, **options: Any) -> dict[str, Any]:
        return super().forward_intermediates(image, **options)


class AnyFormat(Capable):
    def forward_intermediates(self, image: Tensor, **options: Any) -> dict[str, Any]:
        return super().forward_intermediates(image, **options | {"output_fmt": "NCHW"})


class WrongBackward(Capable):
    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image) * (2 if self.checkpointing else 1)


class OneSize(Capable):
    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image)[:, : 128 // image.shape[2]]


class Undecayed(Capable):
    def no_weight_decay(self) -> set[str]:
        return {"proj.weight", "positions"}


class PatchedConfig(PlainConfig):
    def takes_patches(self) -> tuple[int, int]:
        return 4, 4


class Patched(Plain):
    """A tower of one layer that takes patches too."""

    image_patches = (4, 4)

    def valid(self, image: Any) -> Tensor:
        return image["patch_valid"]

    def forward(self, image: Any) -> Tensor:
        if isinstance(image, Tensor):
            return super().forward(image)
        pixels, valid = image["patches"].unflatten(-1, (-1, 3)), self.valid(image)[..., None, None]
        sums = pixels.masked_fill(~valid, 0).sum(dim=(1, 2))
        means = sums / (valid.sum(dim=(1, 2)) * pixels.shape[2])
        return self.proj(torch.cat([means, pixels.masked_fill(~valid, -9).amax(dim=(1, 2))], dim=-1))


class PatchesApart(Patched):
    def forward(self, image: Any) -> Tensor:
        return super().forward(image) * (1 if isinstance(image, Tensor) else 2)


class PaddingCounts(Patched):
    def valid(self, image: Any) -> Tensor:
        return torch.ones_like(image["patch_valid"])


class Computing(Plain):
    """A tower whose constructor computes with tensors, into a buffer that is not saved and into one that is."""

    def __init__(self, config: VisionTowerConfig, *, embed_dim: int) -> None:
        super().__init__(config, embed_dim=embed_dim)
        rates = [rate.item() for rate in torch.linspace(0.5, 1.5, embed_dim)]
        self.register_buffer("rates", torch.tensor(rates), persistent=False)
        self.register_buffer("steps", torch.arange(len(torch.linspace(0, 1, embed_dim).tolist())))

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image) * self.rates.to(image.dtype) + self.steps


class Endless(Plain):
    """A tower of a million layers."""

    def __init__(self, config: VisionTowerConfig, *, embed_dim: int) -> None:
        super().__init__(config, embed_dim=embed_dim)
        self.layers = nn.Sequential(*(nn.Sequential(nn.Identity()) for _ in range(1_000_000)))
