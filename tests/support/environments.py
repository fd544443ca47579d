"""Fresh environments in which packages of strangers are installed beside zoo.

An environment sees torch, zoo and the rest through a `.pth` file, so nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Environment:
    """A fresh environment with zoo and some packages."""

    python: Path
    folder: Path

    def run(self, *arguments: str, disable: str = "") -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "ZOO"))}
        environment |= {"OMP_NUM_THREADS": "1", "ZOO_DISABLE_PLUGINS": disable, "COLUMNS": "400"}
        return subprocess.run(
            [self.python, *arguments],
            env=environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def script(self, code: str, *arguments: str, disable: str = "") -> Any:
        """Run a script and return what it printed last, as JSON."""
        done = self.run("-W", "error", "-c", code, *arguments, disable=disable)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def zoo(self, *arguments: str, disable: str = "") -> subprocess.CompletedProcess[str]:
        """Run the console script `zoo`."""
        return self.run("-c", CONSOLE_SCRIPT, *arguments, disable=disable)


CONSOLE_SCRIPT = """
import sys
from importlib.metadata import entry_points
sys.argv[0] = "zoo"
(script,) = entry_points(group="console_scripts", name="zoo")
sys.exit(script.load()())
"""


def installed(folder: Path, projects: Iterable[Path]) -> Environment:
    """Make an environment in a folder, with the wheels of some projects."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    scripts = Path(sysconfig.get_path("scripts", "venv", vars={"base": str(folder / "venv")}))
    packages = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(folder / "venv")}))
    (packages / "host.pth").write_text("\n".join(map(str, host_folders())) + "\n")
    python = scripts / Path(sys.executable).name
    wheels = [build(source, folder / "wheels") for source in projects]
    install = [
        "install",
        "--no-deps",
        "--no-index",
        "--no-compile",
        "--disable-pip-version-check",
        "-q",
        *wheels,
    ]
    done = subprocess.run([sys.executable, "-m", "pip", "--python", python, *install], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Environment(python, folder)


def host_folders() -> list[Path]:
    """Return the folders from which this process imports zoo, its plugins, torch and their metadata."""
    modules = ("zoo", "zoo_core", "zoo_vit", "torch", "pluggy")
    specs = [importlib.util.find_spec(module) for module in modules]
    found = [Path(spec.origin).parents[1] for spec in specs if spec is not None and spec.origin is not None]
    found.append(Path(str(importlib.metadata.distribution("clip-zoo").locate_file(""))))
    return list(dict.fromkeys(path.resolve() for path in found))


def build(project: Path, wheels: Path) -> Path:
    """Build the wheel of a project, as pip would."""
    import hatchling.build

    wheels.mkdir(exist_ok=True)
    with contextlib.chdir(project):
        return wheels / hatchling.build.build_wheel(str(wheels))
