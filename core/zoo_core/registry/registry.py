"""The registry: every component and name that the installed plugins declare.

Discovery imports only the plugins' light modules; configs and factories are imported on first use. Whoever asks for a
part of a quarantined plugin is told why it is not there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, cast

from zoo_core.boundary import checked
from zoo_core.boundary.plugin_code import PluginCode
from zoo_core.errors import AmbiguousNameError, InputError, PluginError, UnknownNameError, describe, did_you_mean
from zoo_core.plugin import KINDS, MODALITIES, Kind, ModalitySpec
from zoo_core.registry.component import Component, Plugin, normalised, resolve
from zoo_core.registry.discovery import entry_points, load_plugin, origin_of

__all__ = ["Registry", "default_registry"]


class Registry:
    """Everything that a set of plugins declares.

    Args:
        plugins: loaded plugins, in the order in which they are listed; see `discover`.
        disabled: names of the plugins that `ZOO_DISABLE_PLUGINS` leaves out.
    """

    def __init__(self, plugins: Iterable[Plugin], disabled: Sequence[str] = ()) -> None:
        plugins = tuple(plugins)
        self._disabled = tuple(disabled)
        modalities = {modality.name for plugin in plugins for modality in plugin.modalities}
        self.plugins: tuple[Plugin, ...] = tuple(_of_modalities(plugin, modalities) for plugin in plugins)
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
        disabled = {normalised(name) for name in os.environ.get("ZOO_DISABLE_PLUGINS", "").split(",")}
        plugins: list[Plugin] = []
        left_out: list[str] = []
        origin = cache(origin_of)  # metadata is parsed anew whenever it is asked for
        declared = sorted((*origin(entry.dist), entry.name, entry.value) for entry in entry_points())
        for distribution, version, name, target in declared:
            names = (name, distribution, f"{distribution}/{name}")
            if disabled.intersection(map(normalised, names)):
                left_out.append(f"{name} ({distribution} {version})")
            else:
                plugins.append(load_plugin(name, target, distribution, version))
        return cls(plugins, left_out)

    @property
    def quarantined(self) -> tuple[Plugin, ...]:
        """The plugins that cannot be used; `error` of each says why."""
        return tuple(plugin for plugin in self.plugins if plugin.error is not None)

    @property
    def clashes(self) -> tuple[tuple[Component, ...], ...]:
        """Components that claim one (kind, name)."""
        return tuple(tuple(owners) for owners in self._components.values() if len(owners) > 1)

    @cached_property
    def modalities(self) -> tuple[ModalitySpec, ...]:
        """Every modality, zoo's own first, those that several plugins claim included."""
        return (*MODALITIES, *(modality for plugin in self.plugins for modality in plugin.modalities))

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Every kind of component that there may be."""
        of_modalities = (kind for spec in self.modalities for kind in (spec.tower_kind, spec.processor_kind))
        return tuple(dict.fromkeys((*KINDS, *of_modalities)))

    @checked
    def modality(self, name: str) -> ModalitySpec:
        """Return the modality of a name.

        Raises:
            UnknownNameError: nobody declares it; the nearest name is offered.
            AmbiguousNameError: several plugins declare it.
        """
        named = [modality for modality in self.modalities if modality.name == name]
        if len(named) == 1:
            return named[0]
        if named:
            owners = [plugin.label for plugin in self.plugins if name in {spec.name for spec in plugin.modalities}]
            raise AmbiguousNameError(
                f"modality '{name}' is claimed by {' and by '.join(owners)}; leave one out with ZOO_DISABLE_PLUGINS"
            )
        names = [modality.name for modality in self.modalities]
        raise UnknownNameError(f"unknown modality {describe(name)}{did_you_mean(name, names)}{self.quarantine_note()}")

    def modality_label(self, name: str) -> str:
        """Return what errors call a modality: its name, and the plugin that declares it."""
        spec = self.modality(name)
        owners = [plugin.label for plugin in self.plugins if spec in plugin.modalities]
        return f"modality '{name}' of {owners[0]}" if owners else f"modality '{name}'"

    @checked
    def modality_class(self, name: str, part: str, base: type[Any]) -> type[Any]:
        """Import and return a class that the declaration of a modality names.

        Args:
            name: of the modality.
            part: `"handler"`, `"tower_config"` or `"processor_config"`.
            base: what the class has to derive from.

        Raises:
            PluginError: it cannot be imported, does not derive from `base`, or is of another kind or modality.
        """
        spec, label = self.modality(name), self.modality_label(name)
        target: str = getattr(spec, part)
        with PluginCode(label, f"its {part} {target} cannot be imported"):
            value: Any = resolve(target)
        if not (isinstance(value, type) and issubclass(value, base)):
            expected = f"{base.__module__}.{base.__qualname__}"
            raise PluginError(f"{label}: its {part} {target} is not a subclass of {expected}")
        kinds = {"tower_config": spec.tower_kind, "processor_config": spec.processor_kind}
        for attribute, promised in {"kind": kinds[part], "modality": name}.items() if part in kinds else ():
            actual = getattr(value, attribute, None)
            if actual != promised:
                raise PluginError(
                    f"{label}: its {part} {target} must have {attribute} = '{promised}', found {describe(actual)}"
                )
        return cast("type[Any]", value)

    @checked
    def components(self, kind: Kind | None = None) -> Iterator[Component]:
        """Yield every component, or those of one kind, clashing ones included."""
        if kind is not None:
            self._check_kind(kind)
        for (kind_of_owners, _), owners in sorted(self._components.items(), key=lambda item: item[0]):
            if kind in (None, kind_of_owners):
                yield from owners

    @checked
    def get(self, kind: Kind, name: str) -> Component:
        """Return the component that `name` (or `distribution/name`) stands for.

        Raises:
            UnknownNameError: nobody declares it; the nearest name and the quarantined plugins are named.
            AmbiguousNameError: several distributions declare it.
        """
        self._check_kind(kind)
        distribution, _, bare = name.rpartition("/")
        owners = self._components.get((kind, bare), [])
        if distribution:
            owners = [component for component in owners if component.plugin.belongs_to(distribution)]
        if len(owners) == 1:
            return owners[0]
        if owners:
            choices = dict.fromkeys(f"'{component.qualified_name}'" for component in owners)
            fix = f"write {' or '.join(choices)}, or leave" if len(choices) > 1 else "leave"
            labels = " and by ".join(component.plugin.label for component in owners)
            raise AmbiguousNameError(f"{kind} '{name}' is claimed by {labels}; {fix} one out with ZOO_DISABLE_PLUGINS")
        components = self.components(kind)
        names = [component.qualified_name if distribution else component.spec.name for component in components]
        raise UnknownNameError(f"unknown {kind} {describe(name)}{did_you_mean(name, names)}{self.quarantine_note()}")

    @checked
    def qualified(self, kind: Kind, name: str, owner: str) -> str:
        """Return `name` as the distribution `owner` means it: its own part, where a stranger claims the name too."""
        owners = self._components.get((kind, name), [])
        of_owner = [component.qualified_name for component in owners if component.plugin.belongs_to(owner)]
        return of_owner[0] if of_owner and len(owners) > 1 else name

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
                architecture = function(path)
            if not isinstance(architecture, Mapping):
                raise PluginError(f"{owner}: it must return a mapping, found {type(architecture).__name__}")
            return cast("Mapping[str, Any]", architecture)

        return read

    def _check_kind(self, kind: Kind) -> None:
        if kind not in self.kinds:
            raise InputError(f"unknown kind of component {describe(kind)}{did_you_mean(kind, self.kinds)}")

    def _offered(self, verb: str, name: str, offers: Sequence[tuple[Plugin, Mapping[str, str]]]) -> tuple[Plugin, Any]:
        """Import and return the one thing that plugins offer under a name, and the plugin that does."""
        owners = [(plugin, targets[name]) for plugin, targets in offers if name in targets]
        if not owners:
            names = [offered for _, targets in offers for offered in targets]
            raise UnknownNameError(
                f"no plugin {verb}s {describe(name)}{did_you_mean(name, names)}" + self.quarantine_note()
            )
        if len(owners) > 1:
            raise AmbiguousNameError(
                f"'{name}' is {verb}ed by {' and by '.join(plugin.label for plugin, _ in owners)}; "
                "leave one out with ZOO_DISABLE_PLUGINS"
            )
        ((plugin, target),) = owners
        with PluginCode(f"'{name}' of {plugin.label}", f"{target} cannot be imported"):
            return plugin, resolve(target)

    def exported_names(self) -> tuple[str, ...]:
        """Return every public name that plugins export."""
        return tuple(sorted({name for plugin in self.plugins for name in plugin.exports}))

    def quarantine_note(self) -> str:
        """Return what to add to an error: the plugins that are quarantined or left out, if any."""
        quarantined = ", ".join(plugin.label for plugin in self.quarantined)
        note = f"; quarantined plugins: {quarantined}" if quarantined else ""
        return note + (f"; left out by ZOO_DISABLE_PLUGINS: {', '.join(self._disabled)}" if self._disabled else "")


def _of_modalities(plugin: Plugin, names: Collection[str]) -> Plugin:
    """Return a plugin; quarantined where it has a part of a modality that no plugin declares."""
    for spec in plugin.components:
        if spec.modality is not None and spec.modality not in names:
            error = f"{spec.kind} '{spec.name}' is of modality '{spec.modality}', which no plugin declares"
            return Plugin(plugin.name, plugin.target, plugin.distribution, plugin.version, error=error)
    return plugin


@cache
def default_registry() -> Registry:
    """Return the registry of the installed plugins, discovered once a process."""
    return Registry.discover()
