"""The registry: every part that installed plugins declare, found without importing one of them whole.

Each plugin is loaded on its own. One that fails to import in whatever way, declares nonsense or was built for another
API is quarantined: `Registry.quarantined` says why, whoever asks for its parts is told, and nothing else is harmed.
Discovery imports only the plugins' light modules; configs and factories are imported on first use.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.resources
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.resources.abc import Traversable
from itertools import islice
from pathlib import Path
from typing import Any, cast

from zoo_core.boundary import checked
from zoo_core.boundary.plugin_code import Interrupts, PluginCode, made_by
from zoo_core.errors import (
    AmbiguousNameError,
    MissingDependencyError,
    PluginError,
    UnknownNameError,
    describe,
    did_you_mean,
    reason,
)
from zoo_core.plugin import API_VERSION, ENTRY_POINT_GROUP, ComponentSpec, Kind, call_hooks

__all__ = ["Component", "Plugin", "Registry", "default_registry", "squash"]

MAX_DECLARED = 1_000
"""Components, exports or importers of one plugin; more are no declaration, but a generator without an end."""

_INTERFACES: Mapping[Kind, str] = {
    "vision-tower": "zoo_core.interfaces:VisionTower",
    "text-tower": "zoo_core.interfaces:TextTower",
    "model": "zoo_core.models.dual_encoder:DualEncoder",
    "tokenizer": "zoo_core.text.tokenizer:Tokenizer",
    "loss": "zoo_core.interfaces:Loss",
    "preprocessor": "zoo_core.images:Preprocessor",
    "checkpoint-format": "zoo_core.checkpoints:CheckpointFormat",
}
"""What a factory of each kind returns; imported when one has returned something."""


def squash(name: str) -> str:
    """Return `name` without case and separators: `ViT-B/16` and `vit-b16` are one name."""
    return re.sub(r"[-_/. ]", "", name).lower()


@dataclass(frozen=True)
class Plugin:
    """One entry point of the group `zoo.plugins`, loaded or quarantined (then `error` says why)."""

    name: str
    target: str
    distribution: str
    version: str
    error: str | None = None
    components: tuple[ComponentSpec, ...] = ()
    architectures: str | None = None
    pretrained: str | None = None
    exports: Mapping[str, str] = field(default_factory=dict[str, str])
    importers: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def label(self) -> str:
        """`name (distribution version)`."""
        return f"{self.name} ({self.distribution} {self.version})"

    def belongs_to(self, distribution: str) -> bool:
        """Tell whether `distribution` is this plugin's, in any spelling: `acme_towers` is `acme-towers`."""
        return _normalised(self.distribution) == _normalised(distribution)


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
        return tuple(name for name in self.spec.requires if not _is_installed(name))

    def config_class(self) -> type[Any]:
        """Import and return the config class.

        Raises:
            PluginError: it cannot be imported, or is no `zoo_core.config.Config`.
        """
        from zoo_core.config import Config

        found: Any = self._import("config")
        if not (isinstance(found, type) and issubclass(found, Config)):
            told = describe(cast("object", found))
            raise PluginError(f"{self}: {self.spec.config} is not a subclass of zoo_core.config.Config, found {told}")
        made_by(self, found)
        return found

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
        interface: Any = _resolve(_INTERFACES[self.spec.kind])
        if not isinstance(built, interface):
            raise PluginError(f"{self}: its factory must return a {interface.__name__}, found {type(built).__name__}")
        made_by(self, cast("type[Any]", type(built)))
        return built

    def _import(self, what: str) -> Any:
        target: str = getattr(self.spec, what)
        with PluginCode(self, f"its {what} {target} cannot be imported"):
            return _resolve(target)

    def __str__(self) -> str:
        return f"{self.spec.kind} '{self.spec.name}' of {self.plugin.distribution} {self.plugin.version}"


class Registry:
    """Everything that a set of plugins declares.

    Args:
        plugins: loaded plugins, in the order in which they are listed; see `discover`.
    """

    def __init__(self, plugins: Iterable[Plugin]) -> None:
        self.plugins: tuple[Plugin, ...] = tuple(plugins)
        self._components: dict[tuple[Kind, str], list[Component]] = {}
        for plugin in self.plugins:
            for spec in plugin.components:
                self._components.setdefault((spec.kind, spec.name), []).append(Component(spec, plugin))

    @classmethod
    def discover(cls) -> Registry:
        """Load every entry point of the group `zoo.plugins`, in an order that does not depend on the file system.

        `ZOO_DISABLE_PLUGINS` (comma-separated entry point names, distributions or `distribution/name`) leaves
        plugins out.
        """
        disabled = {_normalised(name) for name in os.environ.get("ZOO_DISABLE_PLUGINS", "").split(",")}
        plugins: list[Plugin] = []
        origin = cache(_origin)  # metadata is parsed anew whenever it is asked for
        declared = sorted((*origin(entry.dist), entry.name, entry.value) for entry in _entry_points())
        for distribution, version, name, target in declared:
            names = (name, distribution, f"{distribution}/{name}")
            if not any(_normalised(one) in disabled for one in names):
                plugins.append(_load(name, target, distribution, version))
        return cls(plugins)

    @property
    def quarantined(self) -> tuple[Plugin, ...]:
        """The plugins that cannot be used; `error` of each says why."""
        return tuple(plugin for plugin in self.plugins if plugin.error is not None)

    @property
    def clashes(self) -> tuple[tuple[Component, ...], ...]:
        """Components that claim one (kind, name)."""
        return tuple(tuple(owners) for owners in self._components.values() if len(owners) > 1)

    @checked
    def components(self, kind: Kind | None = None) -> Iterator[Component]:
        """Yield every component, or those of one kind, clashing ones included."""
        for (found_kind, _), owners in sorted(self._components.items(), key=lambda item: item[0]):
            if kind in (None, found_kind):
                yield from owners

    @checked
    def get(self, kind: Kind, name: str) -> Component:
        """Return the component that `name` (or `distribution/name`) stands for.

        Raises:
            UnknownNameError: nobody declares it; the nearest name and the quarantined plugins are named.
            AmbiguousNameError: several distributions declare it.
        """
        distribution, _, bare = name.rpartition("/")
        owners = self._components.get((kind, bare), [])
        if distribution:
            owners = [one for one in owners if one.plugin.belongs_to(distribution)]
        if len(owners) == 1:
            return owners[0]
        if owners:
            choices = dict.fromkeys(f"'{one.qualified_name}'" for one in owners)
            fix = f"write {' or '.join(choices)}, or leave" if len(choices) > 1 else "leave"
            raise AmbiguousNameError(
                f"{kind} '{name}' is claimed by {' and by '.join(one.plugin.label for one in owners)}; "
                f"{fix} one out with ZOO_DISABLE_PLUGINS"
            )
        known = [one.qualified_name if distribution else one.spec.name for one in self.components(kind)]
        raise UnknownNameError(f"unknown {kind} {describe(name)}{did_you_mean(name, known)}{self.quarantine_note()}")

    @checked
    def qualified(self, kind: Kind, name: str, owner: str) -> str:
        """Return `name` as the distribution `owner` means it: its own part, where a stranger claims the name too."""
        owners = self._components.get((kind, name), [])
        own = [one.qualified_name for one in owners if one.plugin.belongs_to(owner)]
        return own[0] if own and len(owners) > 1 else name

    @checked
    def export(self, name: str) -> Any:
        """Import and return the public class `name`.

        Raises:
            UnknownNameError: no plugin exports it.
            AmbiguousNameError: several do.
            PluginError: it cannot be imported.
        """
        return self._offered("export", name, [(plugin, plugin.exports) for plugin in self.plugins])[1]

    @checked
    def importer(self, name: str) -> Callable[[Path], Mapping[str, Any]]:
        """Import and return the function that reads a file of the format `name`, and gives a mapping.

        Raises:
            UnknownNameError: no plugin imports it.
            AmbiguousNameError: several do.
            PluginError: the function cannot be imported; or, when it is called, it fails or gives no mapping.
        """
        plugin, function = self._offered("import", name, [(plugin, plugin.importers) for plugin in self.plugins])
        owner = f"importer '{name}' of {plugin.label}"

        def read(path: Path) -> Mapping[str, Any]:
            with PluginCode(owner, f"it failed at {path}"):
                found = function(path)
            if not isinstance(found, Mapping):
                raise PluginError(f"{owner}: it must return a mapping, found {type(found).__name__}")
            return cast("Mapping[str, Any]", found)

        return read

    def _offered(self, verb: str, name: str, offers: Sequence[tuple[Plugin, Mapping[str, str]]]) -> tuple[Plugin, Any]:
        """Import and return the one thing that plugins offer under a name, and the plugin that does."""
        owners = [(plugin, targets[name]) for plugin, targets in offers if name in targets]
        if not owners:
            known = [offered for _, targets in offers for offered in targets]
            raise UnknownNameError(
                f"no plugin {verb}s {describe(name)}{did_you_mean(name, known)}" + self.quarantine_note()
            )
        if len(owners) > 1:
            raise AmbiguousNameError(
                f"'{name}' is {verb}ed by {' and by '.join(plugin.label for plugin, _ in owners)}; "
                "leave one out with ZOO_DISABLE_PLUGINS"
            )
        ((plugin, target),) = owners
        with PluginCode(f"'{name}' of {plugin.label}", f"{target} cannot be imported"):
            return plugin, _resolve(target)

    def exported_names(self) -> tuple[str, ...]:
        """Return every public name that plugins export."""
        return tuple(sorted({name for plugin in self.plugins for name in plugin.exports}))

    def quarantine_note(self) -> str:
        """Return a half-sentence that names the quarantined plugins, or nothing."""
        if not self.quarantined:
            return ""
        return "; quarantined plugins: " + ", ".join(plugin.label for plugin in self.quarantined)


@cache
def default_registry() -> Registry:
    """Return the registry of the installed plugins, discovered once a process."""
    return Registry.discover()


def folder(target: str) -> Traversable:
    """Return the folder that `"package:folder"` stands for."""
    package, _, path = target.partition(":")
    return importlib.resources.files(package).joinpath(path) if path else importlib.resources.files(package)


def _entry_points() -> Iterable[importlib.metadata.EntryPoint]:
    try:
        return importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    except Exception:  # one malformed entry_points.txt, of whatever package, spoils the list of all
        found: dict[tuple[str, str], importlib.metadata.EntryPoint] = {}
        for distribution in importlib.metadata.distributions():
            with suppress(Exception):
                for entry in distribution.entry_points.select(group=ENTRY_POINT_GROUP):
                    found.setdefault((_normalised(_origin(entry.dist)[0]), entry.name), entry)
        return found.values()


def _origin(distribution: importlib.metadata.Distribution | None) -> tuple[str, str]:
    """Return name and version; metadata that was half removed has neither."""
    name: str | None = distribution.name if distribution is not None else None
    version: str | None = distribution.version if distribution is not None else None
    return name or "unknown", version or "0"


def _normalised(distribution: str) -> str:
    """Return the one spelling of a distribution's name that packaging tools compare (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution.strip()).lower()


def _load(name: str, target: str, distribution: str, version: str) -> Plugin:
    """Import one plugin module and collect its declarations; any failure becomes the plugin's `error`."""
    with Interrupts() as interrupts:
        try:
            return _declared(name, target, distribution, version)
        except BaseException as error:
            if interrupts.arrived:
                raise KeyboardInterrupt from error
            return Plugin(name=name, target=target, distribution=distribution, version=version, error=reason(error))


def _declared(name: str, target: str, distribution: str, version: str) -> Plugin:
    module = _resolve(target)
    _check_api_version(module)
    answers = call_hooks(module, name)
    return Plugin(
        name=name,
        target=target,
        distribution=distribution,
        version=version,
        components=_specs(answers.get("zoo_components", ())),
        architectures=_folder_name("zoo_architectures", answers),
        pretrained=_folder_name("zoo_pretrained", answers),
        exports=_targets("zoo_exports", answers),
        importers=_targets("zoo_importers", answers),
    )


def _check_api_version(module: Any) -> None:
    version = getattr(module, "ZOO_API_VERSION", None)
    if version != API_VERSION:
        built_for = "no API version" if version is None else f"API version {version}"
        raise PluginError(
            f"it declares {built_for}, this zoo speaks API version {API_VERSION}; "
            f"set ZOO_API_VERSION = {API_VERSION} once the plugin follows it, or install a matching release"
        )


def _specs(answer: object) -> tuple[ComponentSpec, ...]:
    if not isinstance(answer, Iterable):
        raise TypeError(f"zoo_components must return component specs, found {type(answer).__name__}")
    specs = tuple(islice(cast("Iterable[object]", answer), MAX_DECLARED + 1))
    if len(specs) > MAX_DECLARED:
        raise ValueError(f"zoo_components declares more than {MAX_DECLARED} components")
    seen: set[tuple[Kind, str]] = set()
    for spec in specs:
        if not isinstance(spec, ComponentSpec):
            raise TypeError(f"zoo_components must return component specs, found {type(spec).__name__}")
        if (spec.kind, spec.name) in seen:
            raise ValueError(f"zoo_components declares {spec.kind} '{spec.name}' twice")
        seen.add((spec.kind, spec.name))
    return cast("tuple[ComponentSpec, ...]", specs)


def _folder_name(hook: str, answers: Mapping[str, object]) -> str | None:
    answer = answers.get(hook)
    if answer is None:
        return None
    if not isinstance(answer, str):
        raise TypeError(f"{hook} must return 'package:folder', found {type(answer).__name__}")
    if not folder(answer).is_dir():
        raise FileNotFoundError(f"{hook} names {answer!r}, which is no folder")
    return answer


def _targets(hook: str, answers: Mapping[str, object]) -> Mapping[str, str]:
    answer = answers.get(hook, {})
    if not isinstance(answer, Mapping):
        raise TypeError(f"{hook} must return a mapping, found {type(answer).__name__}")
    targets = cast("Mapping[object, object]", answer)
    found: dict[str, str] = {}
    for name, target in islice(targets.items(), MAX_DECLARED + 1):
        if len(found) == MAX_DECLARED:
            raise ValueError(f"{hook} declares more than {MAX_DECLARED} names")
        if not (isinstance(name, str) and isinstance(target, str) and ":" in target):
            raise TypeError(f"{hook} maps names to 'module:attribute', found {describe(name)}: {describe(target)}")
        found[name] = target
    return found


def _resolve(target: str) -> Any:
    module, _, attributes = target.partition(":")
    found: Any = importlib.import_module(module)
    for attribute in filter(None, attributes.split(".")):
        found = getattr(found, attribute)
    return found


def _is_installed(requirement: str) -> bool:
    try:
        importlib.metadata.version(requirement)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
