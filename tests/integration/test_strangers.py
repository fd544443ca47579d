"""Packages of strangers: built into wheels, installed beside zoo in a fresh environment, used from there.

The environment sees torch, zoo and the rest through a `.pth` file, so nothing is downloaded. One of the
packages is `docs/examples/acme-towers`, the example of the tutorial; each of the others is broken in its own
way, and all are installed at once: whatever works here works in spite of them.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from support.environments import Environment, installed

DOCS = Path(__file__).parents[2] / "docs"
ACME = DOCS / "examples" / "acme-towers"

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "2.5"

[project.entry-points."zoo.plugins"]
parts = "{package}.plugin"
"""

HEAD = """
from zoo_core.plugin import ComponentSpec, hookimpl

ZOO_API_VERSION = 1
"""

TOWER = (
    HEAD
    + """

@hookimpl
def zoo_components():
    yield ComponentSpec(
        kind="vision-tower", name="{tower}", config="zoo_vit.config:ViTConfig", factory="zoo_vit.tower:None",
        requires={requires})
"""
)

PLUGINS = {
    "acme-broken": "raise RuntimeError('the licence server\\nis down')",
    "acme-exit": "raise SystemExit(3)",
    "acme-future": HEAD.replace("= 1", "= 99"),
    "acme-missing": "import a_package_that_nobody_has",
    "acme-misspelt": HEAD + "\n\n@hookimpl\ndef zoo_component():\n    return ()\n",
    "acme-nonsense": HEAD + "\n\n@hookimpl\ndef zoo_components():\n    yield 'vit'\n",
    "acme-kind": TOWER.format(tower="lidar", requires=()).replace("vision-tower", "lidar-tower"),
    "acme-optional": TOWER.format(tower="optional", requires=("nonexistent-package",)),
    "acme-thief": TOWER.format(tower="vit", requires=()),
}
"""Distribution -> its plugin module."""

REASONS = {
    "acme-broken": "RuntimeError: the licence server is down",
    "acme-exit": "SystemExit: 3",
    "acme-future": "it declares API version 99, this zoo speaks API version 1; ",
    "acme-missing": "ModuleNotFoundError: No module named 'a_package_that_nobody_has'",
    "acme-misspelt": "PluginValidationError: unknown hook 'zoo_component' in plugin",
    "acme-nonsense": "TypeError: zoo_components must return component specs, found str",
    "acme-kind": "ValueError: component 'lidar': unknown kind 'lidar-tower'; allowed: vision-tower, ",
}
"""Distribution -> how the reason of its quarantine begins."""


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("strangers")
    environment = installed(folder, (ACME, *written(folder / "sources", PLUGINS)))
    shutil.copy(ACME / "my-model.yaml", folder)
    shutil.copytree(ACME / "tests", folder / "tests")
    return environment


def written(folder: Path, plugins: Mapping[str, str]) -> list[Path]:
    """Write one project for each plugin module."""
    projects = []
    for name, code in plugins.items():
        package = name.replace("-", "_")
        (folder / name / package).mkdir(parents=True)
        (folder / name / "pyproject.toml").write_text(PYPROJECT.format(name=name, package=package))
        (folder / name / package / "__init__.py").touch()
        (folder / name / package / "plugin.py").write_text(code)
        projects.append(folder / name)
    return projects


@pytest.fixture(scope="session")
def registry(environment: Environment) -> Any:
    """Return what the registry of the fresh environment knows, without torch."""
    return environment.script(
        """
import json, sys, zoo
registry = zoo.registry()
models = zoo.list_models()
print(json.dumps({
    "models": models,
    "errors": {plugin.distribution: [plugin.version, plugin.error] for plugin in registry.quarantined},
    "towers": [one.qualified_name for one in registry.components("vision-tower")],
    "torch": "torch" in sys.modules,
}))"""
    )


@pytest.fixture(scope="session")
def models(environment: Environment) -> Any:
    """Build models in the fresh environment: the stranger's by name, by file, and one of zoo's own."""
    return environment.script(
        """
import json, sys, torch, zoo
from zoo_core.errors import MissingDependencyError
acme = zoo.build("acme-tiny")
mine = zoo.build("my-model.yaml")
own = zoo.build("vit-s32-alt", overrides=["vision.layers=1", "vision.width=64", "text.layers=1"])
texts = ["a cat", "two dogs"]
logits = acme.get_logits(torch.rand(3, 3, 64, 64), texts)[0]
zoo.save(acme, "saved")
again = zoo.load("saved")
try:
    zoo.build("acme-tiny", overrides=["vision={tower: optional}"])
except MissingDependencyError as error:
    missing = str(error)
print(json.dumps({
    "acme": type(acme.visual).__module__,
    "logits": list(logits.shape),
    "finite": bool(logits.isfinite().all()),
    "mine": list(mine.encode_image(torch.rand(1, 3, 96, 96)).shape),
    "channels": mine.visual.stages[0][0].out_channels,
    "own": [type(own.visual).__module__, list(own.encode_image(torch.rand(1, 3, 224, 224)).shape)],
    "saved": torch.equal(acme.encode_text(texts), again.encode_text(texts)),
    "missing": missing,
}))"""
    )


def test_the_strangers_architecture_is_listed_beside_zoos_own(registry: Any) -> None:
    assert {"acme-tiny", "vit-b16", "vit-l14"} <= set(registry["models"])


def test_listing_with_strangers_installed_imports_no_torch(registry: Any) -> None:
    assert not registry["torch"]


@pytest.mark.parametrize("distribution", REASONS)
def test_a_bad_plugin_is_quarantined_with_its_version_and_the_reason(registry: Any, distribution: str) -> None:
    version, reason = registry["errors"][distribution]
    assert version == "2.5"
    assert reason.startswith(REASONS[distribution])
    assert "\n" not in reason


def test_nothing_else_is_quarantined(registry: Any) -> None:
    assert set(registry["errors"]) == set(REASONS)


def test_every_part_that_loads_is_there_under_its_owner(registry: Any) -> None:
    expected = {"acme-towers/conv-mean", "acme-optional/optional", "acme-thief/vit", "clip-zoo/vit"}
    assert expected <= set(registry["towers"])


def test_the_strangers_tower_embeds_beside_zoos_text_tower(models: Any) -> None:
    assert models["acme"] == "acme_towers.tower"
    assert (models["logits"], models["finite"]) == ([3, 2], True)


def test_a_users_file_extends_the_strangers_architecture(models: Any) -> None:
    assert (models["mine"], models["channels"]) == ([1, 64], 32)


def test_a_saved_model_with_the_strangers_tower_comes_back(models: Any) -> None:
    assert models["saved"]


def test_zoos_own_architecture_builds_zoos_own_tower_under_a_thief(models: Any) -> None:
    assert models["own"] == ["zoo_vit.tower", [1, 256]]


def test_a_missing_package_is_named_with_the_command_that_installs_it(models: Any) -> None:
    assert models["missing"] == (
        "vision-tower 'optional' of acme-optional 2.5 needs nonexistent-package, which is not installed; "
        "run: pip install nonexistent-package"
    )


STOLEN = """
import json, zoo
from zoo_core.errors import ConfigError
def told(tower):
    vision = {"tower": tower, "image_size": 32, "patch_size": 8, "width": 64, "layers": 1}
    try:
        return zoo.config({"extends": "acme-tiny", "vision": vision}).vision.component
    except ConfigError as error:
        return str(error)
print(json.dumps([told("vit"), told("clip-zoo/vit"), told("clip_zoo/vit")]))
"""


def test_a_stolen_name_is_refused_with_both_owners_and_the_cure(environment: Environment) -> None:
    refused, qualified, other_spelling = environment.script(STOLEN)
    assert "vision.tower: vision-tower 'vit' is claimed by parts (acme-thief 2.5) and by vit (clip-zoo" in refused
    assert "write 'acme-thief/vit' or 'clip-zoo/vit', or leave one out with ZOO_DISABLE_PLUGINS" in refused
    assert (qualified, other_spelling) == ("clip-zoo/vit", "clip_zoo/vit")


def test_disabling_the_thief_gives_the_name_back(environment: Environment) -> None:
    assert environment.script(STOLEN, disable="acme_thief")[0] == "vit"


def test_the_examples_own_tests_pass(environment: Environment) -> None:
    done = environment.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", disable="acme-thief")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_zoo_list_shows_the_strangers_architecture(environment: Environment) -> None:
    done = environment.zoo("list")
    assert done.returncode == 0, done.stderr
    assert {"acme-tiny", "vit-b16"} <= set(done.stdout.split())


def test_zoo_plugins_reports_every_plugin_and_why_it_is_quarantined(environment: Environment) -> None:
    done = environment.zoo("plugins")
    said = " ".join((done.stdout + done.stderr).split())
    for distribution in ("acme-towers", *PLUGINS):
        assert distribution in said
    for reason in REASONS.values():
        assert reason.strip() in said
    assert "nonexistent-package" in said


def test_zoo_leaves_out_a_disabled_plugin(environment: Environment) -> None:
    done = environment.zoo("plugins", disable="acme-thief")
    assert "acme-towers" in done.stdout
    assert "acme-thief" not in done.stdout


FENCED = re.compile(r"^```\w+ file=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = FENCED.findall((DOCS / "write-a-tower.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("name", "block"), BLOCKS, ids=[name for name, _ in BLOCKS])
def test_the_tutorial_shows_the_code_of_the_example(name: str, block: str) -> None:
    assert block == (ACME / name).read_text(encoding="utf-8")


def test_the_tutorial_shows_every_file_of_the_example() -> None:
    files = {str(path.relative_to(ACME)) for path in ACME.rglob("*") if path.suffix in (".py", ".toml", ".yaml")}
    assert {name for name, _ in BLOCKS} == files - {"acme_towers/__init__.py"}
