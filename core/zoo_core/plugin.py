"""Plugin interface: component and modality specs, hook marker and hooks.

A plugin is a module named by an entry point of the group `zoo.plugins`. It sets `ZOO_API_VERSION` and implements
any of the hooks below. It is *declared* without being built: the module must not import torch, timm or
transformers, and its specs name configs and factories as strings that are imported on first use.

    ZOO_API_VERSION = 1

    @hookimpl
    def zoo_components():
        yield ComponentSpec(
            kind="vision-tower", name="mean-pool",
            config="acme.config:MeanPoolConfig", factory="acme.tower:MeanPool", summary="...")
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pluggy

__all__ = [
    "API_VERSION",
    "CAPABILITIES",
    "ENTRY_POINT_GROUP",
    "IMAGE",
    "KINDS",
    "TEXT",
    "Capability",
    "ComponentSpec",
    "Kind",
    "ModalitySpec",
    "hookimpl",
]

API_VERSION = 1
"""Version of the hooks and specs of this file. A plugin built for another is refused with both versions."""

ENTRY_POINT_GROUP = "zoo.plugins"

Kind = str
"""One of `KINDS`, or the tower or preprocessor of a modality that a plugin declares (`"depth-tower"`)."""
KINDS: tuple[Kind, ...] = (
    "vision-tower",
    "text-tower",
    "model",
    "tokenizer",
    "loss",
    "preprocessor",
    "checkpoint-format",
    "dataset",
    "optimizer",
    "callback",
    "evaluator",
)

Capability = Literal[
    "tokens",  # gives every token beside the pooled feature
    "intermediates",  # gives the output of any of its blocks
    "locking",  # has layer groups, so that a part of it can stay trainable
    "gradient-checkpointing",  # can trade compute for activation memory
    "variable-image-size",  # takes other image sizes than the one it was built for
    "image-patches",  # takes pictures as patches too, each picture with its own number of rows and columns
    "variable-text-length",  # takes fewer tokens than its context length
]
CAPABILITIES: tuple[Capability, ...] = get_args(Capability)

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_IDENTIFIER = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_EXTENSION = re.compile(r"(\.[a-z0-9]+)+")
_REQUIREMENT = re.compile(r"[A-Za-z0-9]+([-_.]+[A-Za-z0-9]+)*")
_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")

hookimpl = pluggy.HookimplMarker("zoo")
_hookspec = pluggy.HookspecMarker("zoo")


@dataclass(frozen=True)
class ComponentSpec:
    """What a plugin declares of one part: data only, nothing is imported until the part is used.

    Args:
        kind: what the part is; decides which config base and interface it has to satisfy.
        name: kebab-case name, unique within its kind (`"vit"`).
        config: `"module:Class"` of its config, a subclass of the kind's base in `zoo_core.config`. Light: no torch.
        factory: `"module:callable"` that builds it from the config; see `zoo_core.interfaces` for each kind.
        summary: one line for `zoo plugins`.
        requires: names of distributions beyond zoo's own, such as `("timm",)`, checked before the part is built;
            versions belong in the plugin's own metadata.
        capabilities: what a tower claims beyond its required methods.
        modality: of a part of another modality than images and text, whose kind is `"tower"` or `"preprocessor"`:
            the name of the `ModalitySpec`. Its kind becomes `"depth-tower"` where the modality is `"depth"`.

    Raises:
        ValueError: a field is malformed; the message names the field and what is allowed.
    """

    kind: Kind
    name: str
    config: str
    factory: str
    summary: str = ""
    requires: tuple[str, ...] = ()
    capabilities: frozenset[Capability] = frozenset()
    modality: str | None = None

    def __post_init__(self) -> None:
        self._check_kind()
        if not _matches(_NAME, self.name):
            raise ValueError(f"{self.kind} {self.name!r}: a name is kebab-case, such as 'my-tower'")
        for field in ("config", "factory"):
            if not _matches(_TARGET, getattr(self, field)):
                raise ValueError(
                    f"{self.kind} '{self.name}': {field} must read 'module:name', found {getattr(self, field)!r}"
                )
        for field in ("requires", "capabilities"):
            names = getattr(self, field)
            if isinstance(names, str):
                raise ValueError(
                    f"{self.kind} '{self.name}': {field} takes several names, found {names!r}; put it in a tuple"
                )
        object.__setattr__(self, "requires", tuple(self.requires))
        object.__setattr__(self, "capabilities", frozenset(self.capabilities))
        for requirement in self.requires:
            if not _matches(_REQUIREMENT, requirement):
                raise ValueError(
                    f"{self.kind} '{self.name}': requires holds names of distributions such as 'timm', "
                    f"found {requirement!r}"
                )
        unknown = sorted(self.capabilities - set(CAPABILITIES))
        if unknown:
            raise ValueError(
                f"{self.kind} '{self.name}': unknown capabilities {unknown}; allowed: {', '.join(CAPABILITIES)}"
            )

    def _check_kind(self) -> None:
        """Hold the kind to those that there are, and complete that of a part of another modality."""
        if self.modality is None:
            if self.kind not in KINDS:
                other = "; a tower of another modality has kind 'tower' and names its modality"
                raise ValueError(
                    f"component {self.name!r}: unknown kind {self.kind!r}; allowed: {', '.join(KINDS)}{other}"
                )
            return
        if not _matches(_IDENTIFIER, self.modality):
            raise ValueError(f"component {self.name!r}: modality is a name such as 'depth', found {self.modality!r}")
        part = self.kind.removeprefix(f"{self.modality.replace('_', '-')}-")
        if part not in ("tower", "preprocessor"):
            raise ValueError(
                f"component {self.name!r}: a part of a modality has kind 'tower' or 'preprocessor', found {self.kind!r}"
            )
        object.__setattr__(self, "kind", f"{self.modality.replace('_', '-')}-{part}")


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


@dataclass(frozen=True)
class ModalitySpec:
    """What a plugin declares of a kind of input, such as depth maps: data only, nothing is imported until it is used.

    Args:
        name: what `encode`, `towers=` and outputs call it (`"depth"`); lower-case letters, digits and underscores.
        handler: `"module:Class"`, a subclass of `zoo_core.models.modality.Modality`: how inputs are prepared, checked
            and encoded.
        tower_config: `"module:Class"`, the base of the configs of its towers. Light: no torch.
        processor_config: `"module:Class"`, the base of the configs of what makes batches of raw inputs.
        section: key of the tower in an architecture; `name` unless given.
        processor: key of the processor in an architecture, and the attribute of a model that holds it;
            `<name>_preprocess` unless given.
        module: child module of a model that holds the tower, and so the prefix in state dicts; `name` unless given.
        files: how the files end that hold its inputs, such as `(".npy",)`; none where inputs are no files.
        tower_kind, processor_kind: kinds of its components; `<name>-tower` and `<name>-preprocessor` unless given.

    Raises:
        ValueError: a field is malformed; the message names the field and what is allowed.
    """

    name: str
    handler: str
    tower_config: str
    processor_config: str
    section: str = ""
    processor: str = ""
    module: str = ""
    files: tuple[str, ...] = ()
    tower_kind: Kind = ""
    processor_kind: Kind = ""

    def __post_init__(self) -> None:
        if not _matches(_IDENTIFIER, self.name):
            raise ValueError(f"modality {self.name!r}: a name is an identifier in lower case, such as 'depth'")
        kind = self.name.replace("_", "-")
        defaults = {
            "section": self.name,
            "processor": f"{self.name}_preprocess",
            "module": self.name,
            "tower_kind": f"{kind}-tower",
            "processor_kind": f"{kind}-preprocessor",
        }
        for field, default in defaults.items():
            object.__setattr__(self, field, getattr(self, field) or default)
        for field in ("section", "processor", "module"):
            if not _matches(_IDENTIFIER, getattr(self, field)):
                raise ValueError(
                    f"modality '{self.name}': {field} must be an identifier, found {getattr(self, field)!r}"
                )
        for field in ("handler", "tower_config", "processor_config"):
            if not _matches(_TARGET, getattr(self, field)):
                raise ValueError(
                    f"modality '{self.name}': {field} must read 'module:name', found {getattr(self, field)!r}"
                )
        if isinstance(self.files, str) or not all(_matches(_EXTENSION, extension) for extension in self.files):
            raise ValueError(f"modality '{self.name}': files holds endings such as ('.npy',), found {self.files!r}")
        object.__setattr__(self, "files", tuple(self.files))


IMAGE = ModalitySpec(
    name="image",
    handler="zoo_core.models.image_inputs:ImageModality",
    tower_config="zoo_core.config:VisionTowerConfig",
    processor_config="zoo_core.config:PreprocessConfig",
    section="vision",
    processor="preprocess",
    module="visual",
    files=(".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
    tower_kind="vision-tower",
    processor_kind="preprocessor",
)
TEXT = ModalitySpec(
    name="text",
    handler="zoo_core.models.text_inputs:TextModality",
    tower_config="zoo_core.config:TextTowerConfig",
    processor_config="zoo_core.config:TokenizerConfig",
    processor="tokenizer",
    processor_kind="tokenizer",
)
MODALITIES = (IMAGE, TEXT)
"""Those of zoo itself, declared as a plugin declares its own."""


class ZooHooks:
    """The hooks of API version 1. Every one is optional and is called once, when plugins are discovered."""

    @_hookspec
    def zoo_components(self) -> Iterable[ComponentSpec]:  # type: ignore[empty-body]
        """Return the component specs of this plugin."""
        raise AssertionError("a hook specification is never called")

    @_hookspec
    def zoo_modalities(self) -> Iterable[ModalitySpec]:  # type: ignore[empty-body]
        """Return the modalities of this plugin: kinds of input beyond images and text."""
        raise AssertionError("a hook specification is never called")

    @_hookspec
    def zoo_architectures(self) -> str:
        """Return `"package:folder"`: a folder of architecture YAML files inside an importable package.

        A file `aliases.yaml` beside them may map architecture names to further names.
        """
        raise AssertionError("a hook specification is never called")

    @_hookspec
    def zoo_pretrained(self) -> str:
        """Return `"package:folder"`: a folder of pretrained entries, one YAML file an architecture."""
        raise AssertionError("a hook specification is never called")

    @_hookspec
    def zoo_recipes(self) -> str:
        """Return `"package:folder"`: a folder of training recipes, YAML files inside an importable package."""
        raise AssertionError("a hook specification is never called")

    @_hookspec
    def zoo_exports(self) -> Mapping[str, str]:
        """Return `{public name: "module:attribute"}`: classes that users reach as `zoo.<public name>`."""
        raise AssertionError("a hook specification is never called")

    @_hookspec
    def zoo_importers(self) -> Mapping[str, str]:
        """Return `{format: "module:function"}`: readers of other libraries' configs, for `zoo import`.

        A function takes the `Path` of a file and returns an architecture as a mapping of plain values. What it does
        not understand, or cannot express, it refuses with a `ConfigError` that lists every such key.
        """
        raise AssertionError("a hook specification is never called")


def hook_names() -> tuple[str, ...]:
    """Return the names of the hooks that a plugin may implement."""
    return tuple(name for name in vars(ZooHooks) if name.startswith("zoo_"))


def call_hooks(module: Any, label: str) -> dict[str, Any]:
    """Call every hook that `module` implements, isolated from all other plugins.

    Returns:
        hook name -> the value that the implementation returned.

    Raises:
        TypeError: a hook lacks its marker, or answers nothing; pluggy would pass over both in silence.
        pluggy.PluginValidationError: a hook is misspelt or has a wrong signature.
        Exception: whatever the implementation raised.
    """
    manager = pluggy.PluginManager("zoo")
    manager.add_hookspecs(ZooHooks)
    manager.register(module, name=label)
    manager.check_pending()
    answers: dict[str, Any] = {}
    for name in hook_names():
        hook: pluggy.HookCaller = getattr(manager.hook, name)
        if hook.get_hookimpls():
            values = hook()
            if not values:
                raise TypeError(f"{name} returned nothing")
            answers[name] = values[0]
        elif hasattr(module, name):
            raise TypeError(f"{name} lacks its marker; write @hookimpl above it")
    return answers
