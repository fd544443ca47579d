"""Walks of docs/architecture.md: the files that they name, in their order."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRACE = """
import json, sys
from pathlib import Path
import zoo
from PIL import Image

files, imports = {}, 0

def enter(frame, event, _):
    # What an import runs is no step of a walk.
    global imports
    if frame.f_code.co_name == "<module>":
        imports += {"call": 1, "return": -1}.get(event, 0)
    elif event == "call" and not imports:
        files.setdefault(frame.f_code.co_filename)

def walk(program):
    files.clear()
    sys.setprofile(enter)
    result = program()
    sys.setprofile(None)
    walks.append(list(files))
    return result

walks = []
Path("my-model.yaml").write_text("extends: digits-tiny\\nvision: {layers: 2}\\n")
walk(lambda: zoo.build("my-model.yaml"))
model = zoo.build("digits-tiny", pretrained="demo")
Image.new("L", (64, 64)).save("image.png")
walk(lambda: zoo.ZeroShotClassifier(model, ["zero", "seven"], "imagenet-7").top(["image.png"], k=1))
zoo.save(model, "model")
walk(lambda: zoo.load("model"))
print(json.dumps(walks))
"""
NAMES = ["From a YAML to a model", "From an image to a label", "From a folder to a model"]


def room_of(path: str) -> str:
    """Return the folder of a file: what the page calls a room."""
    return path.rpartition("/")[0]


def paths_of(row: str) -> list[str]:
    """Return the files of a row, from their package on; one without a folder stands in that of the file before it."""
    paths: list[str] = []
    for path in re.findall(r"`([^`]+)`", row):
        paths.append(path.partition("/")[2] if "/" in path else f"{room_of(paths[-1])}/{path}")
    return paths


@cache
def page_walks() -> dict[str, list[list[str]]]:
    """Return the files of each row of each walk of the page."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    walks = {}
    for name in NAMES:
        section = text.partition(f"### {name}\n")[2].partition("\n#")[0]
        walks[name] = [paths_of(row) for row in re.findall(r"^\| \d+ \| (.*?) \|", section, flags=re.MULTILINE)]
    return walks


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Return the files of the project that each walk enters, in the order of their first call."""
    folder = tmp_path_factory.mktemp("walks")
    environment = os.environ | {"ZOO_HOME": str(folder / "home")}  # in which no probe was compared yet
    run = subprocess.run(
        [sys.executable, "-c", TRACE], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    walks = json.loads(run.stdout.splitlines()[-1])
    assert len(walks) == len(NAMES)
    package = re.compile(r"(?:.*/)((?:zoo|zoo_[a-z]+)/.+\.py)")
    return {
        name: [match[1] for match in map(package.fullmatch, files) if match]
        for name, files in zip(NAMES, walks, strict=True)
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_walk_enters_the_rooms_in_the_order_of_the_page(name: str, traced: dict[str, list[str]]) -> None:
    rows = page_walks()[name]
    assert len(rows) > 5
    first = {path: place for place, path in reversed(list(enumerate(traced[name])))}
    missing = [path for row in rows for path in row if path not in first]
    assert not missing, f"the walk does not enter {missing}"
    places = [min(first[path] for path in row) for row in rows]
    assert all(one < other for one, other in pairwise(places)), [row[0] for row in rows]


@pytest.mark.parametrize("name", NAMES)
def test_a_room_of_zoo_and_of_its_core_stands_in_one_row(name: str) -> None:
    rows = [{room_of(path) for path in row if path.startswith(("zoo/", "zoo_core/"))} for row in page_walks()[name]]
    rooms = [room for row in rows for room in row]
    assert len(rooms) == len(set(rooms))
