"""One distribution: its folders, its wheel and its entry points agree."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import zoo
from zoo_core.plugin import ENTRY_POINT_GROUP

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TOP_LEVEL = {
    "pyproject.toml",
    "core",
    "plugins",
    "zoo",
    "tests",
    "docs",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
}

# What must never be loaded to list, to explain or to validate.
HEAVY = ("torch", "torchvision", "timm", "transformers", "open_clip", "safetensors.torch", "ftfy", "PIL", "sklearn")


def packages() -> set[str]:
    """The packages that the source roots hold."""
    return {
        path.parent.relative_to(ROOT).as_posix()
        for root in ("core", "plugins", "zoo")
        for path in (ROOT / root).glob("*/__init__.py")
    }


def test_the_wheel_lists_every_package_of_the_source_roots() -> None:
    assert set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == packages()


def test_every_plugin_folder_is_a_declared_entry_point() -> None:
    declared = PROJECT["project"]["entry-points"][ENTRY_POINT_GROUP]
    folders = {path.removeprefix("plugins/") for path in packages() if path.startswith("plugins/")}
    assert set(declared.values()) == {f"{folder}.plugin" for folder in folders} | {"zoo.plugin"}


def test_the_installed_entry_points_are_the_declared_ones() -> None:
    installed = importlib.metadata.distribution("clip-zoo").entry_points
    assert {entry.name: entry.value for entry in installed.select(group=ENTRY_POINT_GROUP)} == PROJECT["project"][
        "entry-points"
    ][ENTRY_POINT_GROUP], "reinstall with: pip install -e ."
    assert {entry.name: entry.value for entry in installed.select(group="console_scripts")} == PROJECT["project"][
        "scripts"
    ]


def test_every_package_is_typed_and_every_plugin_has_the_agreed_files() -> None:
    for package in packages():
        assert (ROOT / package / "py.typed").is_file(), package
        if package.startswith("plugins/"):
            assert (ROOT / package / "plugin.py").is_file(), package
            assert any((ROOT / package).rglob("config.py")), package


def test_the_version_is_the_distributions() -> None:
    assert zoo.__version__ == importlib.metadata.version("clip-zoo") == PROJECT["project"]["version"]


def test_the_top_level_holds_the_agreed_names_alone() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    names = {line.partition("/")[0] for line in tracked.stdout.splitlines()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def test_the_hosted_checks_run_those_of_the_project_on_the_oldest_and_the_newest_python() -> None:
    (job,) = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"].values()
    classifiers = PROJECT["project"]["classifiers"]
    supported = [name.rpartition(" ")[2] for name in classifiers if "Python :: 3." in name]
    assert job["strategy"]["matrix"]["python"] == [supported[0], supported[-1]]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]


def loaded_by(program: str) -> set[str]:
    """Return the modules that a program loads in a fresh interpreter."""
    run = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys\nprint('|'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return set(run.stdout.splitlines()[-1].split("|"))


@pytest.mark.parametrize(
    "program",
    [
        "import zoo",
        "import zoo; zoo.list_models(); dir(zoo)",
        "import zoo; zoo.config('vit-b16').parameter_count()",
        "import zoo; zoo.registry(); [c.config_class() for c in zoo.registry().components()]",
        "from zoo import CLIPVisionCfg, CLIPTextCfg; CLIPVisionCfg(layers=2)",
        "from zoo.catalog.pretrained import entries_of; entries_of('digits-tiny')",
    ],
)
def test_listing_and_explaining_load_nothing_heavy(program: str) -> None:
    assert not loaded_by(program) & set(HEAVY)


def test_importing_zoo_loads_nothing_but_zoo() -> None:
    assert not {
        name
        for name in loaded_by("import zoo")
        if name.partition(".")[0] in ("pluggy", "pydantic", "omegaconf", "yaml", "zoo_core")
    }


def test_importing_zoo_changes_no_global_state() -> None:
    program = """
import os, sys, warnings, locale, signal, logging
def state(): return dict(os.environ), list(warnings.filters), locale.getlocale(), logging.root.handlers[:], signal.getsignal(signal.SIGINT), sys.excepthook
before = state()
import zoo; zoo.list_models(); zoo.config('vit-b16')
assert state() == before
"""
    assert "zoo" in loaded_by(program)


def test_tests_without_an_installed_zoo_say_how_to_install_it(tmp_path: Path) -> None:
    """Run the suite's conftest where the distribution cannot be found."""
    hide = tmp_path / "sitecustomize.py"
    hide.write_text(
        "import importlib.metadata as m\nfind = m.distribution\n"
        "def distribution(name):\n    if name == 'clip-zoo': raise m.PackageNotFoundError(name)\n    return find(name)\n"
        "m.distribution = distribution\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", __file__],
        cwd=ROOT, env={"PYTHONPATH": str(tmp_path), "PATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 3
    assert "zoo is not installed in" in run.stdout + run.stderr
    assert "pip install -e '.[test]'" in run.stdout + run.stderr


def test_the_tests_that_ci_names_are_there() -> None:
    programs = (
        [path.read_text() for path in (ROOT / ".ci").iterdir() if path.is_file()] if (ROOT / ".ci").is_dir() else []
    )
    if not programs:
        pytest.skip("not a git checkout")
    named = {path for text in programs for path in re.findall(r"(?<![\w/])tests/[\w/]+(?:\.py)?", text)}
    assert named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
