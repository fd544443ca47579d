"""Plugins and their components: declared by name, imported on first use."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from zoo_core.boundary.plugin_code import PluginCode, made_by
from zoo_core.errors import MissingDependencyError, PluginError, describe
from zoo_core.plugin import ComponentSpec, Kind, ModalitySpec

__all__ = ["Component", "Plugin", "normalised", "resolve", "squash"]

CONFIG = "zoo_core.config:Config"
"""What every config class derives from."""
PRODUCTS: Mapping[Kind, str] = {
    "other tower": "zoo_core.interfaces:Tower",
    "other preprocessor": "zoo_core.models.modality:Processor",
    "vision-tower": "zoo_core.interfaces:VisionTower",
    "text-tower": "zoo_core.interfaces:TextTower",
    "model": "zoo_core.models.dual_encoder:DualEncoder",
    "tokenizer": "zoo_core.text.tokenizer:Tokenizer",
    "loss": "zoo_core.interfaces:Loss",
    "preprocessor": "zoo_core.images:Preprocessor",
    "checkpoint-format": "zoo_core.checkpoints:CheckpointFormat",
    "dataset": "zoo_core.training:SampleSource",
    "optimizer": "torch.optim:Optimizer",
    "callback": "zoo_core.training:Callback",
    "evaluator": "zoo_core.training:Evaluator",
}
"""What a factory of each kind returns; `other` are those of modalities that plugins declare.

This and `CONFIG` stand above the registry. It names them as plugins name their parts, and imports them on first use.
"""


@dataclass(frozen=True)
class Plugin:
    """One entry point of the group `zoo.plugins`, loaded or quarantined (then `error` says why)."""

    name: str
    target: str
    distribution: str
    version: str
    error: str | None = None
    components: tuple[ComponentSpec, ...] = ()
    modalities: tuple[ModalitySpec, ...] = ()
    architectures: str | None = None
    pretrained: str | None = None
    recipes: str | None = None
    exports: Mapping[str, str] = field(default_factory=dict[str, str])
    importers: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def label(self) -> str:
        """`name (distribution version)`."""
        return f"{self.name} ({self.distribution} {self.version})"

    def belongs_to(self, distribution: str) -> bool:
        """Tell whether `distribution` is this plugin's, in any spelling: `acme_towers` is `acme-towers`."""
        return normalised(self.distribution) == normalised(distribution)


@dataclass(frozen=True)
class Component:
    """A spec together with the plugin that declared it."""

    spec: ComponentSpec
    plugin: Plugin

    @property
    def qualified_name(self) -> str:
        """`distribution/name`, which addresses this part even where another plugin claims its name."""
        return f"{self.plugin.distribution}/{self.spec.name}"

    @property
    def missing(self) -> tuple[str, ...]:
        """The required packages that are not installed."""
        missing: list[str] = []
        for name in self.spec.requires:
            try:
                importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                missing.append(name)
        return tuple(missing)

    def config_class(self) -> type[Any]:
        """Import and return the config class.

        Raises:
            PluginError: it cannot be imported, or is no `zoo_core.config.Config`.
        """
        config_class: Any = self._import("config")
        if not (isinstance(config_class, type) and issubclass(config_class, resolve(CONFIG))):
            name, value = CONFIG.replace(":", "."), describe(cast("object", config_class))
            raise PluginError(f"{self}: {self.spec.config} is not a subclass of {name}, found {value}")
        made_by(self, config_class)
        return config_class

    def build(self, config: Any, **context: Any) -> Any:
        """Import the factory and call it with `config` and what its kind passes along.

        Raises:
            MissingDependencyError: a required package is not installed.
            PluginError: the factory cannot be imported, fails, or returns something else than its kind promises.
        """
        if self.missing:
            names = " ".join(self.missing)
            raise MissingDependencyError(f"{self} needs {names}, which is not installed; run: pip install {names}")
        factory = self._import("factory")
        with PluginCode(self, f"its factory {self.spec.factory} failed"):
            built = factory(config, **context)
        kind = self.spec.kind if self.spec.modality is None else f"other {self.spec.kind.rpartition('-')[2]}"
        interface: Any = resolve(PRODUCTS[kind])
        if not isinstance(built, interface):
            article = "an" if interface.__name__[0] in "AEIO" else "a"
            raise PluginError(
                f"{self}: its factory must return {article} {interface.__name__}, found {type(built).__name__}"
            )
        made_by(self, cast("type[Any]", type(built)))
        return built

    def _import(self, what: str) -> Any:
        target: str = getattr(self.spec, what)
        with PluginCode(self, f"its {what} {target} cannot be imported"):
            return resolve(target)

    def __str__(self) -> str:
        return f"{self.spec.kind} '{self.spec.name}' of {self.plugin.distribution} {self.plugin.version}"


def normalised(distribution: str) -> str:
    """Return the one spelling of a distribution's name that packaging tools compare (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution.strip()).lower()


def squash(name: str) -> str:
    """Return `name` without case and separators: `ViT-B/16` and `vit-b16` are one name."""
    return re.sub(r"[-_/. ]", "", name).lower()


def resolve(target: str) -> Any:
    """Import and return what `"module:attribute"` names; the module where no attribute is named."""
    module, _, attributes = target.partition(":")
    value: Any = importlib.import_module(module)
    for attribute in filter(None, attributes.split(".")):
        value = getattr(value, attribute)
    return value
