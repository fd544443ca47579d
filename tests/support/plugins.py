"""Installed plugins, without installing anything."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zoo_core.config import VisionTowerConfig
from zoo_core.interfaces import VisionTower
from zoo_core.plugin import ComponentSpec, hookimpl
from zoo_core.registry import Registry


@dataclass(frozen=True)
class Distribution:
    name: str | None
    version: str | None = "1.0"


@dataclass(frozen=True)
class EntryPoint:
    """As much of `importlib.metadata.EntryPoint` as the registry reads."""

    name: str
    value: str
    dist: Any


class ConvConfig(VisionTowerConfig):
    tower: str = "conv"


class Conv(VisionTower):
    def __init__(self, config: object, *, embed_dim: int) -> None:
        super().__init__()
        self.given = config, embed_dim

    def forward(self, image: Any) -> Any:
        return image


def spec(name: str = "conv", kind: Any = "vision-tower", **fields: Any) -> ComponentSpec:
    given = {"config": f"{__name__}:ConvConfig", "factory": f"{__name__}:Conv"} | fields
    return ComponentSpec(kind=kind, name=name, **given)


def hooks(version: object = 1, **answers: object) -> types.ModuleType:
    """Return a plugin module whose hooks give `answers`; an exception is raised instead."""
    module = types.ModuleType("plugin")
    if version is not None:
        module.ZOO_API_VERSION = version
    for name, answer in answers.items():
        setattr(module, f"zoo_{name}", hookimpl(_answering(answer)))
    return module


def _answering(answer: object) -> Callable[[], object]:
    def hook() -> object:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return hook


Install = Callable[..., Registry]
