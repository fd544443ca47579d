"""Registry: plugins, their components, and where names are looked up."""

from zoo_core.registry.component import Component, Plugin, squash
from zoo_core.registry.discovery import package_folder
from zoo_core.registry.registry import Registry, default_registry

__all__ = ["Component", "Plugin", "Registry", "default_registry", "package_folder", "squash"]
