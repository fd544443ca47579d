"""Construction and inspection of timm backbones; timm's errors become ours.

timm has no table of which backbone takes which option. A backbone is therefore built, and the option that it refuses
is named. Its output shape, and whether it takes images of this size, are found by sending an empty image through it
on the meta device, which computes only shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import timm
import torch
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn
from torch.func import functional_call

from zoo_core.boundary.library_code import library_code
from zoo_core.boundary.plugin_code import passes
from zoo_core.errors import ConfigError, Problem, did_you_mean, reason
from zoo_timm.config import ATTENTION_POOLS, TimmConfig

__all__ = ["build_trunk", "output_shape", "refuse"]

_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")
_KEYS = {"drop_path_rate": "drop_path", "patch_drop_rate": "patch_dropout", "global_pool": "pool"}


def build_trunk(config: TimmConfig, embed_dim: int) -> Any:
    """Build the backbone, with the head that the config's pool and projection leave to it.

    Raises:
        ConfigError: timm has no such backbone, or the backbone does not take an option.
    """
    if not timm.is_model(config.name):
        message = f"timm {timm.__version__} has no backbone '{config.name}'"
        raise refuse("name", message + did_you_mean(config.name, timm.list_models()))
    options = config.options()
    pool = {} if config.pool is None else {"global_pool": config.pool}
    with _refusals(config):
        if config.pool not in ATTENTION_POOLS and config.proj in ("head", "none"):
            trunk = _create(config, num_classes=embed_dim if config.proj == "head" else 0, **pool, **options)
        else:  # taking the classifier off afterwards leaves norms where published weights have them
            trunk = _create(config, **options)
            trunk.reset_classifier(0, **({"global_pool": ""} if config.pool in ATTENTION_POOLS else pool))
        _check_patches(trunk, config)
    return trunk


def output_shape(trunk: nn.Module, config: TimmConfig) -> tuple[int, ...]:
    """Return the shape of what the backbone makes of one image, without computing it.

    Raises:
        ConfigError: the backbone does not take images of this size.
    """
    tensors = {**dict(trunk.named_parameters()), **dict(trunk.named_buffers())}
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    height, width = config.image_size
    training = trunk.training
    trunk.eval()
    taken = f"backbone '{config.name}' takes no images of {height} x {width} pixels"
    try:
        with library_code(lambda cause: refuse("image_size", f"{taken}: {cause}")), torch.no_grad():
            image = torch.empty(1, 3, height, width, device="meta")
            output: Tensor = functional_call(trunk, shapes, (image,))
            return tuple(output.shape)
    finally:
        trunk.train(training)


def refuse(key: str, message: str) -> ConfigError:
    """Return the error that blames a key of the vision section."""
    return ConfigError(Problem(message, f"vision.{key}"))


def _create(config: TimmConfig, **options: Any) -> Any:
    """Build the backbone for the config's image size, where it is built for one."""
    try:
        return timm.create_model(config.name, img_size=config.image_size, **options)
    except TypeError as error:
        if "img_size" not in _UNEXPECTED.findall(str(error)):
            raise
    return timm.create_model(config.name, **options)


def _check_patches(trunk: Any, config: TimmConfig) -> None:
    """Refuse images whose last rows or columns would belong to no patch: timm leaves them out in silence.

    The backbone's own size stands: SigLIP's SO400M was trained with patches of 14 on images of 384 pixels.
    """
    height, width = config.image_size
    if tuple(trunk.default_cfg["input_size"][1:]) == (height, width):
        return
    for module in trunk.modules():
        if isinstance(module, PatchEmbed) and not module.dynamic_img_pad:
            rows, columns = cast("tuple[int, int]", module.patch_size)
            if height % rows or width % columns:
                raise refuse(
                    "image_size",
                    f"backbone '{config.name}' has patches of {rows} x {columns} pixels, "
                    f"which do not divide images of {height} x {width}",
                )


@contextmanager
def _refusals(config: TimmConfig) -> Iterator[None]:
    """Turn what timm raises into an error that names the backbone and, where timm tells it, the option."""
    try:
        yield
    except Exception as error:
        if passes(error):
            raise
        for option in _UNEXPECTED.findall(str(error)):
            key = _KEYS.get(option, f"kwargs.{option}")
            raise refuse(key, f"backbone '{config.name}' of timm {timm.__version__} takes no '{option}'") from error
        key = "pool" if "pool" in str(error) else "kwargs" if config.kwargs else "name"
        raise refuse(key, f"timm {timm.__version__} cannot build '{config.name}': {reason(error)}") from error
