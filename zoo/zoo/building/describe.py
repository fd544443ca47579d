"""Descriptions of architectures and plugins as plain data.

A stranger's broken file or config class must not hide everybody else's, so its problem is an entry of the
list that it would have stood in. Nothing here imports torch.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from zoo.building.source import resolve
from zoo.catalog.architectures import architectures
from zoo.catalog.pretrained import entries_of
from zoo_core.architectures import Architectures
from zoo_core.config import ComponentConfig, TowerConfig
from zoo_core.registry import Component, Plugin

__all__ = ["Clash", "clashes", "describe_model", "describe_plugin"]


@dataclass(frozen=True)
class Clash:
    """A name that several plugins claim; `kind` is that of a component, or `architecture`, `export` or `importer`."""

    kind: str
    name: str
    owners: tuple[Plugin, ...]

    def __str__(self) -> str:
        return f"{self.kind} '{self.name}' is claimed by {' and by '.join(owner.label for owner in self.owners)}"

    def to_dict(self) -> dict[str, Any]:
        """Return the names, ready for JSON."""
        return {"kind": self.kind, "name": self.name, "owners": [owner.label for owner in self.owners]}


def describe_model(source: str) -> dict[str, Any]:
    """Return all that is known of an architecture, ready for JSON.

    Args:
        source: what `zoo.build` takes; or `NAME:TAG`, an architecture as these weights were trained.

    Returns:
        `name`, `aliases`, `file`, `description`, `parameters`, `towers`, `text_contract`, `components` (each with
        its distribution and version), `pretrained` (the entry of each tag, `from`, its place in a word, and `terms`)
        and the resolved `config`.

    Raises:
        ConfigError: the architecture or one of its pretrained entries is wrong.
        UnknownNameError: there is none of that name.
    """
    resolved = resolve(source)
    config, catalog = resolved.config, architectures()
    name, aliases, entries = source, (), {}
    if resolved.kind == "name":
        entry = catalog.find(resolved.argument)
        name, aliases, entries = entry.name, entry.aliases, entries_of(resolved.argument)
        if resolved.tag is not None:
            entries = {tag: entry for tag, entry in entries.items() if tag == resolved.tag}
    tags = {tag: {"from": entry.place, "terms": entry.terms} | entry.data() for tag, entry in entries.items()}
    contract = config.text_contract()
    parts: dict[str, ComponentConfig] = {"model": config, **dict(config.sections())}
    return {
        "name": name,
        "aliases": list(aliases),
        "file": str(resolved.path),
        "description": config.description,
        "parameters": config.parameter_count(),
        "towers": {
            section: {"component": part.component, "parameters": part.parameter_count(config.embed_dim)}
            for section, part in parts.items()
            if isinstance(part, TowerConfig)
        },
        "text_contract": None if contract is None else contract.to_dict(),
        "components": {
            section: _provenance(catalog.registry.get(part.kind, part.component)) for section, part in parts.items()
        },
        "pretrained": tags,
        "config": config.data(),
    }


def describe_plugin(plugin: Plugin, claimed: list[Clash]) -> dict[str, Any]:
    """Return what a plugin offers, or why it cannot be used, ready for JSON.

    Args:
        plugin: a plugin of a registry.
        claimed: the clashes of that registry.
    """
    clashes = [clash for clash in claimed if plugin in clash.owners]
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "status": "quarantined" if plugin.error is not None else "clash" if clashes else "ok",
        "reason": plugin.error,
        "clashes": [clash.to_dict() for clash in clashes],
        "components": [_component(Component(spec, plugin)) for spec in plugin.components],
        "architectures": plugin.architectures,
        "pretrained": plugin.pretrained,
        "exports": sorted(plugin.exports),
        "importers": sorted(plugin.importers),
    }


def clashes(catalog: Architectures | None = None) -> list[Clash]:
    """Return every name of a component, an architecture, an export or an importer that several plugins claim."""
    catalog = catalog or architectures()
    owners: defaultdict[tuple[str, str], list[Plugin]] = defaultdict(list)
    for plugin in catalog.registry.plugins:
        claims = [(spec.kind, spec.name) for spec in plugin.components]
        claims += [("export", name) for name in plugin.exports]
        claims += [("importer", name) for name in plugin.importers]
        for claim in claims:
            owners[claim].append(plugin)
    for entry in catalog.entries:
        owners["architecture", entry.name].append(entry.plugin)
    return [Clash(kind, name, tuple(plugins)) for (kind, name), plugins in owners.items() if len(plugins) > 1]


def _provenance(component: Component) -> dict[str, Any]:
    return {
        **_component(component),
        "plugin": component.plugin.name,
        "distribution": component.plugin.distribution,
        "version": component.plugin.version,
    }


def _component(component: Component) -> dict[str, Any]:
    spec = component.spec
    return {
        "kind": spec.kind,
        "name": spec.name,
        "summary": spec.summary,
        "capabilities": sorted(spec.capabilities),
        "missing": list(component.missing),
    }
