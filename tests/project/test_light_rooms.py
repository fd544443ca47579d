"""Rooms of zoo_core that import nothing heavy, so that names, configs and files are at hand at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import zoo_core

ROOMS = ("architectures", "boundary", "checkpoints", "config", "documents", "files", "hub", "registry", "text")
FILES = ("errors", "plugin")
HEAVY = ("torch", "numpy", "PIL", "transformers", "pyarrow", "huggingface_hub", "omegaconf", "ftfy")
MAY_BE_HEAVY = {"checkpoints.finite", "text.mending"}
"""Modules that are heavy themselves, and that nothing light imports at its top."""


def light_modules(room: str) -> list[str]:
    root = Path(zoo_core.__file__).parent
    names = [".".join(path.relative_to(root).with_suffix("").parts) for path in sorted((root / room).glob("*.py"))]
    return [f"zoo_core.{name.removesuffix('.__init__')}" for name in names if name not in MAY_BE_HEAVY]


def heavy_after(modules: list[str]) -> str:
    """Return which heavy packages a fresh process has imported with some modules, and with which of them."""
    source = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        f"    heavy = [package for package in {HEAVY!r} if package in sys.modules]\n"
        "    if heavy:\n"
        "        sys.exit(f'{name} imports {heavy}')\n"
    )
    return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False).stderr.strip()


def test_light_rooms_import_nothing_heavy() -> None:
    modules = [module for room in ROOMS for module in light_modules(room)] + [f"zoo_core.{name}" for name in FILES]
    assert len(modules) > 30
    assert heavy_after(modules) == ""


@pytest.mark.parametrize("module", sorted(MAY_BE_HEAVY))
def test_the_check_names_a_module_that_is_heavy(module: str) -> None:
    assert heavy_after(["zoo_core.errors", f"zoo_core.{module}"]).startswith(f"zoo_core.{module} imports [")
