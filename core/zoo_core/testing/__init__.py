"""Test kit for authors of plugins.

    from zoo_core.testing import check_component, check_plugin

    def test_my_towers():
        for component in check_plugin("acme-towers"):
            check_component(component, {"image_size": 32, "width": 8})

The kit knows no component by name, and zoo's own components pass the same checks. A broken promise becomes one
sentence that names the component.
"""

from zoo_core.testing.components import check_component
from zoo_core.testing.configs import check_config
from zoo_core.testing.failure import BrokenPromiseError, fail
from zoo_core.testing.plugins import HEAVY, check_plugin

__all__ = [
    "HEAVY",
    "BrokenPromiseError",
    "check_component",
    "check_config",
    "check_plugin",
    "fail",
]
