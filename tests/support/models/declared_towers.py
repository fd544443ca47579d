"""Towers as a foreign plugin declares them."""

from __future__ import annotations

import zoo
from support.models import broken_towers
from zoo_core.plugin import ComponentSpec
from zoo_core.registry import Component, Plugin


def stranger(
    factory: type = broken_towers.Plain,
    config: type = broken_towers.PlainConfig,
    capabilities: frozenset[str] = frozenset(),
    kind: str = "vision-tower",
) -> Component:
    """Declare a tower of `broken_towers` as a plugin would."""
    spec = ComponentSpec(
        kind=kind,
        name="plain",
        config=f"{config.__module__}:{config.__name__}",
        factory=f"{factory.__module__}:{factory.__name__}",
        capabilities=capabilities,
    )
    return Component(spec, Plugin("towers", "acme.plugin", "acme", "1.0", components=(spec,)))


def dressed_as_clips(config: type, factory: type) -> Component:
    """Return CLIP's text tower as a stranger's plugin declares it, with another config class or tower."""
    spec = ComponentSpec(
        kind="text-tower",
        name="clip-transformer",
        config=f"{config.__module__}:{config.__name__}",
        factory=f"{factory.__module__}:{factory.__name__}",
        capabilities=zoo.registry().get("text-tower", "clip-transformer").spec.capabilities,
    )
    return Component(spec, Plugin("towers", "acme.plugin", "acme", "1.0", components=(spec,)))
