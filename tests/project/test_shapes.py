"""The generated data set of the tutorial: what it shows, and what it holds out."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import zoo

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shapes() -> Any:
    spec = importlib.util.spec_from_file_location("shapes", ROOT / "docs" / "examples" / "shapes.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["shapes"] = module
    spec.loader.exec_module(module)
    return module


def blobs(picture: Image.Image, colour: tuple[int, int, int]) -> list[list[tuple[int, int]]]:
    """Return the pixels `(y, x)` of each connected patch of a colour."""
    left = {(int(y), int(x)) for y, x in np.argwhere((np.asarray(picture) == colour).all(axis=2))}
    patches = []
    while left:
        patch, edge = [], [left.pop()]
        while edge:
            y, x = edge.pop()
            patch.append((y, x))
            for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if near in left:
                    left.remove(near)
                    edge.append(near)
        patches.append(patch)
    return patches


def test_a_picture_shows_what_its_caption_says(shapes: Any) -> None:
    chance = random.Random(5)
    for scene in chance.sample(shapes.scenes(), 40):
        picture = scene.draw(chance)
        group = blobs(picture, shapes.COLOURS[scene.colour])
        (other,) = blobs(picture, shapes.COLOURS[scene.other_colour])
        assert len(group) == shapes.COUNTS[scene.count], scene.caption
        axis = 1 if scene.relation == "left of" else 0
        assert max(pixel[axis] for patch in group for pixel in patch) < min(pixel[axis] for pixel in other)
        for patch, shape in [(patch, scene.shape) for patch in group] + [(other, scene.other_shape)]:
            height, width = (np.ptp([pixel[axis] for pixel in patch]) + 1 for axis in (0, 1))
            filled = len(patch) / (height * width)
            assert {"square": 1, "circle": 0.79, "triangle": 0.55}[shape] == pytest.approx(filled, abs=0.07), shape


def test_the_tutorial_shows_the_recipe_that_it_runs() -> None:
    recipe = (ROOT / "docs" / "examples" / "shapes.yaml").read_text().strip()
    assert f"```yaml\n{recipe}\n```" in (ROOT / "docs" / "train.md").read_text()


def test_captions_read_as_english(shapes: Any) -> None:
    scene = shapes.Scene("three", "red", "circle", "left of", "blue", "square")
    assert scene.caption == "three red circles left of a blue square"
    assert shapes.Scene("a", "red", "circle", "above", "blue", "square").caption == "a red circle above a blue square"


def test_held_out_captions_are_new_and_their_words_are_not(shapes: Any) -> None:
    train, held_out = shapes.split()
    captions = {scene.caption for scene in train}
    assert len(captions) == len(train) == 583
    assert len(held_out) == 65
    assert not captions & {scene.caption for scene in held_out}
    words = {word for caption in captions for word in caption.split()}
    assert {word for scene in held_out for word in scene.caption.split()} <= words
    assert shapes.split() == (train, held_out)


def test_shards_hold_pairs_in_the_form_of_webdataset(shapes: Any, tmp_path: Path) -> None:
    shapes.write(tmp_path, each=1, held_out_each=1, per_shard=300)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["held-out.tar", "held-out.txt", "train-0000.tar", "train-0001.tar"]
    with tarfile.open(tmp_path / "held-out.tar") as shard:
        members = shard.getnames()
        caption = json.load(shard.extractfile(members[1]))["caption"]  # type: ignore[arg-type]
        with Image.open(shard.extractfile(members[0])) as picture:  # type: ignore[arg-type]
            assert picture.size == (64, 64)
    assert members[:2] == ["000000.png", "000000.json"]
    assert len(members) == 130
    listed = (tmp_path / "held-out.txt").read_text().splitlines()
    assert caption in listed
    assert len(listed) == 65


def test_the_recipe_of_the_page_trains_evaluates_and_saves(
    shapes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shapes.write(Path("shapes"), each=1, held_out_each=1)
    recipe = ROOT / "docs" / "examples" / "shapes.yaml"
    small = ["schedule.steps=4", "schedule.warmup=1", "batch.size=16", "evaluate.every=2", "keep.steps=2"]
    result = zoo.train(recipe, overrides=small, out="run")
    assert result.step == 4 and 0 <= result.metrics["held-out/top1"] <= 1
    model = zoo.load(result.folder)
    captions = ["two red circles above a blue square", "two blue circles above a red square"]
    with tarfile.open("shapes/held-out.tar") as shard:
        name = next(name for name in shard.getnames() if name.endswith(".png"))
        shard.extract(name, filter="data")
    ((best,),) = zoo.ZeroShotClassifier(model, captions, "{}").top([name], k=1)
    assert best[0] in captions
