"""The test kit of plugin authors: what zoo promises its users of every part, checked on those that you wrote.

    from zoo_core.testing import check_component, check_plugin

    def test_my_towers():
        for component in check_plugin("acme-towers"):
            check_component(component, {"image_size": 32, "width": 8})

Nothing here knows a part by name, and zoo's own pass the same checks. What does not hold is told in one
sentence that names the component. Only `check_component` imports torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Never

from zoo_core import config as configs
from zoo_core.architectures import Architectures
from zoo_core.architectures.load import ArchitectureLoader
from zoo_core.config import ComponentConfig
from zoo_core.errors import PluginError, ZooError
from zoo_core.plugin import Kind
from zoo_core.registry import Component, Plugin, Registry, default_registry

__all__ = ["HEAVY", "BrokenPromiseError", "check_component", "check_config", "check_plugin", "fail"]

HEAVY = ("torch", "torchvision", "timm", "transformers")
"""Packages that a plugin's light modules must not import."""

_BASES: dict[Kind, type[ComponentConfig]] = {
    "vision-tower": configs.VisionTowerConfig,
    "text-tower": configs.TextTowerConfig,
    "model": configs.ModelConfig,
    "tokenizer": configs.TokenizerConfig,
    "loss": configs.LossConfig,
    "preprocessor": configs.PreprocessConfig,
    "checkpoint-format": configs.CheckpointFormatConfig,
}


class BrokenPromiseError(ZooError, AssertionError):
    """A component that does not do what its kind or its spec promises."""


def check_plugin(distribution: str, registry: Registry | None = None) -> tuple[Component, ...]:
    """Check what a distribution declares, without building any of it.

    Its plugins load, their entry and config modules import nothing of `HEAVY` (seen in a fresh process),
    config classes have the base of their kind, and its architectures are valid.

    Args:
        distribution: its name, in any spelling.
        registry: where it is looked up; the installed plugins where None.

    Returns:
        its components, for `check_component`.

    Raises:
        BrokenPromiseError: something does not hold.
    """
    registry = registry or default_registry()
    plugins = [plugin for plugin in registry.plugins if plugin.belongs_to(distribution)]
    if not plugins:
        fail(f"{distribution} declares no plugin; it needs an entry point in the group 'zoo.plugins'")
    for plugin in plugins:
        if plugin.error is not None:
            fail(f"plugin {plugin.label} is quarantined: {plugin.error}")
        _check_light(plugin)
    components = tuple(one for one in registry.components() if one.plugin in plugins)
    for component in components:
        _config_class(component)
    loader = ArchitectureLoader(Architectures(registry))
    for entry in loader.architectures.entries:
        if entry.plugin in plugins:
            try:
                loader.load(f"{entry.plugin.distribution}/{entry.name}")
            except ZooError as error:
                fail(f"architecture '{entry.name}' of {entry.plugin.label}: {error}")
    return components


def check_component(component: Component, values: Mapping[str, Any] | ComponentConfig, *, embed_dim: int = 16) -> None:
    """Check a component's config, and of a tower all that its kind and its capabilities promise.

    Args:
        component: one of those that `check_plugin` returns, or `registry.get(kind, name)`.
        values: a small config of it, with or without the key that names the component.
        embed_dim: width of the feature that a tower is built for.

    Raises:
        BrokenPromiseError: something does not hold.
    """
    try:
        config = check_config(component, values)
        if isinstance(config, configs.TowerConfig):
            from zoo_core.testing.towers import check_tower

            check_tower(component, config, embed_dim=embed_dim)
    except PluginError as error:  # what users would be told
        fail(str(error))


def check_config(component: Component, values: Mapping[str, Any] | ComponentConfig) -> ComponentConfig:
    """Check that a config names its component, is plain data, and comes back from it unchanged.

    Returns:
        the config of `values`.
    """
    config_class = _config_class(component)
    config = values if isinstance(values, ComponentConfig) else config_class.parse(values)
    if not isinstance(config, config_class):
        fail(f"{component} takes a {config_class.__name__}, found a {type(config).__name__}")
    try:
        data = json.loads(json.dumps(config.data(), allow_nan=False))
    except (TypeError, ValueError) as error:
        fail(f"{component}: data() of its config is not plain data: {error}")
    if config_class.parse(data) != config:
        fail(f"{component}: its config does not come back from data(), found {data}")
    return config


def fail(sentence: str) -> Never:
    """Raise a `BrokenPromiseError`."""
    raise BrokenPromiseError(sentence)


def _config_class(component: Component) -> type[ComponentConfig]:
    spec, base = component.spec, _BASES[component.spec.kind]
    found = component.config_class()
    if not issubclass(found, base):
        fail(f"{component}: its config {spec.config} must derive from zoo_core.config.{base.__name__}")
    default = found.model_fields[base.selector].default
    if default != spec.name:
        fail(f"{component}: '{base.selector}' of {found.__name__} must default to '{spec.name}', found {default!r}")
    return found


def _check_light(plugin: Plugin) -> None:
    modules = {target.partition(":")[0] for target in (plugin.target, *(one.config for one in plugin.components))}
    command = [sys.executable, "-c", _IMPORT_ALL, ",".join(HEAVY), *sorted(modules)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip() or "its modules cannot be imported").splitlines()[-1]
        fail(f"plugin {plugin.label}: {reason}")


_IMPORT_ALL = """
import importlib, sys
for module in sys.argv[2:]:
    importlib.import_module(module)
    for heavy in sys.argv[1].split(","):
        if heavy in sys.modules:
            sys.exit(f"{module} imports {heavy}; a light module must not, since every zoo command imports it")
"""
