"""Towers held to what their kind promises: when they are built, and each time that they are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from zoo_core.boundary.plugin_code import maker_of
from zoo_core.config import TextTowerConfig, TowerConfig, VisionTowerConfig
from zoo_core.errors import ConfigError, InputError, NotFiniteError, PluginError, Problem, describe
from zoo_core.images.patches import described
from zoo_core.interfaces import TextTower, Tower, VisionTower
from zoo_core.models.construction import construct
from zoo_core.nn.tracing import has_values, is_recorded, is_symbolic
from zoo_core.registry import Component, Registry

__all__ = ["build_tower", "expect_attributes", "features_of", "tokens_of"]

T = TypeVar("T", bound=Tower)


def build_tower(registry: Registry, config: TowerConfig, embed_dim: int, interface: type[T]) -> T:
    """Build the tower of a config and check that it is what its kind promises.

    Raises:
        ConfigError: the config does not go with this `embed_dim`; every problem is named.
        PluginError: the factory failed or returned something else, or a tower of another width or input.
        MissingDependencyError: a package that it needs is not installed.
    """
    component = registry.get(config.kind, config.component)
    broken = [Problem(message, key, type(config).__name__) for key, message in config.rules_for(embed_dim)]
    if broken:
        raise ConfigError(broken)
    tower = cast("T", construct(component, config, embed_dim))
    expect_attributes(component, tower, config, embed_dim)
    return tower


def expect_attributes(component: Component, tower: Tower, config: TowerConfig, embed_dim: int) -> None:
    """Raise a `PluginError` where a tower tells another width or other inputs than its config."""
    promised: dict[str, Any] = {"output_dim": embed_dim}
    if isinstance(config, VisionTowerConfig):
        promised["image_size"] = config.image_size
    if isinstance(config, TextTowerConfig):
        promised |= {"context_length": config.context_length, "vocab_size": config.vocab_size}
    for name, value in promised.items():
        found = getattr(tower, name, None)
        if found != value:
            raise PluginError(f"{component}: {name} of the tower must be {value}, found {describe(found)}")


def features_of(tower: VisionTower | TextTower, inputs: Any) -> Tensor:
    """Return the pooled features `[B, output_dim]` that a tower gives.

    Raises:
        PluginError: it gives something else.
    """
    found = tower(inputs)
    _expect_features(tower, "forward", found, inputs)
    return found


def tokens_of(tower: VisionTower | TextTower, inputs: Any) -> tuple[Tensor, Tensor]:
    """Return what `forward_tokens` gives: pooled features `[B, output_dim]`, and tokens `[B, N, width]`.

    Raises:
        PluginError: it gives something else.
    """
    found: Any = tower.forward_tokens(inputs)
    if not isinstance(found, tuple) or len(cast("tuple[Any, ...]", found)) != 2:
        raise PluginError(_told(tower, "forward_tokens", "features and tokens", cast("object", found)))
    features, tokens = cast("tuple[Any, Any]", found)
    _expect_features(tower, "forward_tokens", features, inputs)
    if not isinstance(tokens, Tensor) or tokens.ndim != 3:
        raise PluginError(_told(tower, "forward_tokens", "tokens [B, N, width]", tokens))
    return features, tokens


def _expect_features(tower: Tower, method: str, found: object, inputs: Any) -> None:
    """Look at type, dtype and shape, which costs a microsecond; in evaluation on the CPU at values too.

    Elsewhere values would have to be waited for, and in training a loss that is not finite tells as much.
    """
    if torch.compiler.is_compiling() or is_symbolic(found) or is_recorded():
        return
    given = cast("Tensor", inputs["patches"] if isinstance(inputs, Mapping) else inputs)
    if not isinstance(found, Tensor) or found.shape != (len(given), tower.output_dim) or not found.is_floating_point():
        wanted = f"floating-point features {[len(given), tower.output_dim]}"
        raise PluginError(_told(tower, method, wanted, found))
    if tower.training or found.device.type != "cpu" or not has_values(found) or bool(found.isfinite().all()):
        return
    if given.is_floating_point() and not bool(given.isfinite().all()):
        raise InputError("the images hold NaN or infinity, and so would their features")
    fix = "compute in float32, or look for what is wrong with its weights (zoo.verify)"
    raise NotFiniteError(f"{maker_of(type(tower))}: {method} gave NaN or infinity of finite inputs; {fix}")


def _told(tower: Tower, method: str, wanted: str, found: object) -> str:
    value = described(found) if isinstance(found, Tensor) else type(found).__name__
    return f"{maker_of(type(tower))}: {method} must return {wanted}, found {value}"
