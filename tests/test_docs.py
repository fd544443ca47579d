"""The documentation says what the code does."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

import zoo

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_yaml_reference_is_what_the_configs_say() -> None:
    spec = importlib.util.spec_from_file_location("generate_reference", ROOT / "docs" / "generate_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.TARGET.read_text() == module.reference(), "run: python docs/generate_reference.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_names_the_public_functions() -> None:
    text = (ROOT / "README.md").read_text()
    missing = [name for name in zoo.__all__ if f"zoo.{name}" not in text and name != "ZooError"]
    assert not missing


def test_the_readme_opens_with_two_commands() -> None:
    """One installs and runs the main job, the other installs and runs the tests."""
    blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    first, second = (block.strip() for block in blocks[:2])
    assert "\n" not in first and first.endswith("zoo demo")
    assert "\n" not in second and "pytest" in second
    ci = (ROOT / ".ci" / "run").read_text()
    assert second.rpartition("&& ")[2].rpartition("/")[2] in ci
