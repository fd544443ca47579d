"""Test kit for authors of plugins."""

from zoo_core.testing.plugins import (
    HEAVY,
    BrokenPromiseError,
    check_component,
    check_config,
    check_plugin,
    fail,
)

__all__ = [
    "HEAVY",
    "BrokenPromiseError",
    "check_component",
    "check_config",
    "check_plugin",
    "fail",
]
