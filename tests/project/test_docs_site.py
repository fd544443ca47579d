"""Site of the docs: navigation, API reference, generated pages, changelog."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import zoo

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TOP = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
"""Pages of the site that stand beside `docs/`."""
PROMISED = ["config", "interfaces", "plugin", "registry", "images", "checkpoints", "errors", "testing"]
"""Modules of `zoo_core` that strangers import, whole ones."""


def navigation() -> list[str]:
    """Return the pages of the navigation, in its order."""

    def pages(entries: list[dict[str, Any]]) -> list[str]:
        targets = [target for entry in entries for target in entry.values()]
        return [page for target in targets for page in (pages(target) if isinstance(target, list) else [target])]

    return pages(yaml.safe_load((DOCS / "site" / "mkdocs.yml").read_text())["nav"])


def test_every_page_stands_once_in_the_navigation() -> None:
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    pages = {page for page in pages if not page.startswith(("examples/", "site/"))}
    assert sorted(navigation()) == sorted(pages | TOP.keys())


def test_the_navigation_opens_with_the_readme_and_ends_with_the_changes() -> None:
    pages = navigation()
    assert (pages[0], pages[-1]) == ("index.md", "changelog.md")
    hooks = (DOCS / "site" / "hooks.py").read_text()
    for page, source in TOP.items():
        assert (ROOT / source).exists()
        assert f'"{source}": "{page}"' in hooks


def test_the_readme_links_to_the_pages_of_the_site() -> None:
    links = set(re.findall(r"\]\(docs/([^)#]+)\)", (ROOT / "README.md").read_text()))
    assert {page for page in navigation() if "/" not in page} - TOP.keys() <= links


def test_the_reference_has_every_public_function() -> None:
    text = (DOCS / "api" / "zoo.md").read_text()
    assert sorted(re.findall(r"^::: zoo\.(\w+)$", text, flags=re.MULTILINE)) == sorted({*zoo.__all__} - {"ZooError"})


@pytest.mark.parametrize("module", PROMISED)
def test_the_reference_has_every_module_for_authors_of_plugins(module: str) -> None:
    assert f"::: zoo_core.{module}\n" in (DOCS / "api" / f"{module}.md").read_text()
    assert f"api/{module}.md" in navigation()


@pytest.mark.parametrize("name", ["Modality", "Processor"])
def test_the_reference_has_the_bases_of_modalities(name: str) -> None:
    assert f"::: zoo_core.models.modality.{name}\n" in (DOCS / "api" / "modality.md").read_text()


@pytest.mark.parametrize("name", ["models", "command_line"])
def test_a_generated_page_is_what_its_program_writes(name: str) -> None:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"generate_{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.TARGET.read_text() == module.page(), f"run: python docs/generate_{name}.py"


def test_the_changes_have_the_form_of_keep_a_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(\d+)\.(\d+)\.(\d+)\] - ", text, flags=re.MULTILINE)
    assert len(versions) == text.count("\n## ")
    numbers = [tuple(map(int, version)) for version in versions]
    assert numbers == sorted(numbers, reverse=True)
    sections = set(re.findall(r"^### (.*)$", text, flags=re.MULTILINE))
    assert {section.partition(" from ")[0] for section in sections} <= {
        *("Migration", "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
    }


def test_the_newest_changes_are_those_of_the_version_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\n## [{version}] - " in (ROOT / "CHANGELOG.md").read_text().partition("\n### ")[0]


def test_the_architecture_page_lists_the_rooms_in_the_order_that_the_linter_holds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    tree = (DOCS / "architecture.md").read_text().partition("```\n")[2].partition("```")[0]
    for contract in project["tool"]["importlinter"]["contracts"]:
        if contract["type"] == "layers":
            chapter = tree.partition(f"/{contract['containers'][0]}/")[2].partition("\n\n")[0]
            rooms = re.findall(r"^  (\w+)", chapter, flags=re.MULTILINE)
            layers = enumerate(contract["layers"])
            heights = {room: height for height, layer in layers for room in re.findall(r"\w+", layer)}
            assert len(rooms) > 10
            assert [heights[room] for room in rooms] == sorted(heights[room] for room in rooms)
