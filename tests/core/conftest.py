"""Plugins that the tests of the registry install."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Mapping

import pytest

from support.plugins import Distribution, EntryPoint, Install
from zoo_core.registry import Registry


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function `(plugin modules by "distribution/name") -> registry of them alone`."""

    def installed(plugins: Mapping[str, object], *, disable: str = "") -> Registry:
        entries = []
        for number, (label, module) in enumerate(plugins.items()):
            distribution, _, name = label.partition("/")
            target = module if isinstance(module, str) else f"installed_plugin_{number}"
            if not isinstance(module, str):
                monkeypatch.setitem(sys.modules, target, module)
            entries.append(EntryPoint(name or "parts", target, Distribution(distribution)))
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries)
        monkeypatch.setenv("ZOO_DISABLE_PLUGINS", disable)
        return Registry.discover()

    return installed
