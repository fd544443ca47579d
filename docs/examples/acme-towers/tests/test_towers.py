"""zoo's own test kit, run over this package."""

import pytest

from zoo_core.testing import check_component, check_plugin

SMALL = [
    {"image_size": 32, "width": 8, "stages": 2},
    {"image_size": [20, 33], "width": 4, "stages": 1},
]


@pytest.mark.parametrize("config", SMALL)
def test_the_tower_keeps_every_promise(config):
    (tower,) = check_plugin("acme-towers")
    check_component(tower, config)
