"""Checks of what a distribution declares, without building any of it."""

from __future__ import annotations

import os
import subprocess
import sys

from zoo_core.architectures import Architectures
from zoo_core.architectures.load import ArchitectureLoader
from zoo_core.errors import ZooError
from zoo_core.registry import Component, Plugin, Registry, default_registry
from zoo_core.testing.configs import checked_config_class
from zoo_core.testing.failure import fail

__all__ = ["HEAVY", "check_plugin"]

HEAVY = ("torch", "torchvision", "timm", "transformers")
"""Packages that a plugin's light modules must not import."""


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
        BrokenPromiseError: a promise is broken.
    """
    registry = registry or default_registry()
    plugins = [plugin for plugin in registry.plugins if plugin.belongs_to(distribution)]
    if not plugins:
        fail(f"{distribution} declares no plugin; it needs an entry point in the group 'zoo.plugins'")
    for plugin in plugins:
        if plugin.error is not None:
            fail(f"plugin {plugin.label} is quarantined: {plugin.error}")
        _check_light(plugin)
    components = tuple(component for component in registry.components() if component.plugin in plugins)
    for component in components:
        checked_config_class(component)
    loader = ArchitectureLoader(Architectures(registry))
    for entry in loader.architectures.entries:
        if entry.plugin in plugins:
            try:
                loader.load(f"{entry.plugin.distribution}/{entry.name}")
            except ZooError as error:
                fail(f"architecture '{entry.name}' of {entry.plugin.label}: {error}")
    return components


def _check_light(plugin: Plugin) -> None:
    modules = {target.partition(":")[0] for target in (plugin.target, *(spec.config for spec in plugin.components))}
    command = [sys.executable, "-c", _IMPORT_ALL, ",".join(HEAVY), *sorted(modules)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    completed = subprocess.run(command, env=environment, capture_output=True, text=True)
    if completed.returncode:
        reason = (completed.stderr.strip() or "its modules cannot be imported").splitlines()[-1]
        fail(f"plugin {plugin.label}: {reason}")


_IMPORT_ALL = """
import importlib, sys
for module in sys.argv[2:]:
    importlib.import_module(module)
    for heavy in sys.argv[1].split(","):
        if heavy in sys.modules:
            sys.exit(f"{module} imports {heavy}; a light module must not, since every zoo command imports it")
"""
