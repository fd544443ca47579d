"""Write pictures of shapes, with captions such as "three red circles left of a blue square", as tar shards.

    python docs/examples/shapes.py shapes

writes `shapes/train-0000.tar` and so on, `shapes/held-out.tar` and `shapes/held-out.txt`. One in ten combinations of
count, colour, shape and relation is held out: every word of its caption occurs in training, and the caption never does.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import random
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

SIDE = 64
"""Height and width of a picture in pixels."""
RADIUS = (5, 6)
"""Least and greatest half width of a shape."""
GAP = 1
"""Pixels between shapes."""

COUNTS = {"a": 1, "two": 2, "three": 3}
COLOURS = {"red": (220, 50, 47), "green": (60, 160, 60), "blue": (50, 90, 220), "yellow": (235, 200, 40)}
SHAPES = ("circle", "square", "triangle")
RELATIONS = ("left of", "above")


@dataclass(frozen=True)
class Scene:
    """Some shapes of one kind, and one more beside or below them."""

    count: str
    colour: str
    shape: str
    relation: str
    other_colour: str
    other_shape: str

    @property
    def caption(self) -> str:
        """What the picture shows: "two green squares above a red circle"."""
        ending = "" if COUNTS[self.count] == 1 else "s"
        shapes = f"{self.count} {self.colour} {self.shape}{ending}"
        return f"{shapes} {self.relation} a {self.other_colour} {self.other_shape}"

    def draw(self, chance: random.Random) -> Image.Image:
        """Return a picture of the scene, in which places, sizes and the grey of the paper are drawn at random."""
        picture = Image.new("RGB", (SIDE, SIDE), (chance.randint(225, 255),) * 3)
        pen = ImageDraw.Draw(picture)
        half = SIDE // 2
        first, second = ((0, 0, half, SIDE), (half, 0, SIDE, SIDE))
        if self.relation == "above":
            first, second = ((0, 0, SIDE, half), (0, half, SIDE, SIDE))
        for x, y, radius in places(COUNTS[self.count], first, chance):
            put(pen, self.shape, COLOURS[self.colour], x, y, radius)
        for x, y, radius in places(1, second, chance):
            put(pen, self.other_shape, COLOURS[self.other_colour], x, y, radius)
        return picture


def scenes() -> list[Scene]:
    """Return every combination; a group and the shape beside it differ in colour."""
    every = itertools.product(COUNTS, COLOURS, SHAPES, RELATIONS, COLOURS, SHAPES)
    return [scene for scene in itertools.starmap(Scene, every) if scene.colour != scene.other_colour]


def split(share: float = 0.1) -> tuple[list[Scene], list[Scene]]:
    """Return the combinations to train on and those held out, the same ones always."""
    every = scenes()
    random.Random(0).shuffle(every)
    count = round(share * len(every))
    return every[count:], every[:count]


def places(count: int, box: tuple[int, int, int, int], chance: random.Random) -> list[tuple[int, int, int]]:
    """Draw centres and radii of shapes in a box that do not touch one another."""
    left, top, right, bottom = box
    while True:
        drawn: list[tuple[int, int, int]] = []
        for _ in range(count):
            radius = chance.randint(*RADIUS)
            x, y = (
                chance.randint(low + radius + GAP, high - radius - GAP - 1)
                for low, high in ((left, right), (top, bottom))
            )
            drawn.append((x, y, radius))
        pairs = itertools.combinations(drawn, 2)
        if all(max(abs(x - u), abs(y - v)) > r + s + GAP for (x, y, r), (u, v, s) in pairs):
            return drawn


def put(pen: ImageDraw.ImageDraw, shape: str, colour: tuple[int, int, int], x: int, y: int, radius: int) -> None:
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        pen.ellipse(box, fill=colour)
    elif shape == "square":
        pen.rectangle(box, fill=colour)
    else:
        pen.polygon([(x, y - radius), (x + radius, y + radius), (x - radius, y + radius)], fill=colour)


def samples(chosen: Iterable[Scene], each: int, seed: int) -> Iterator[tuple[Scene, Image.Image]]:
    """Yield `each` pictures of every scene, mixed."""
    chance = random.Random(seed)
    order = [scene for scene in chosen for _ in range(each)]
    chance.shuffle(order)
    for scene in order:
        yield scene, scene.draw(chance)


def write_shard(path: Path, rows: Iterable[tuple[int, tuple[Scene, Image.Image]]]) -> None:
    """Write samples in webdataset's form: `000001.png` beside `000001.json`."""
    with tarfile.open(path, "w") as shard:
        for number, (scene, picture) in rows:
            content = io.BytesIO()
            picture.save(content, "PNG")
            caption = json.dumps({"caption": scene.caption}).encode()
            for ending, data in (("png", content.getvalue()), ("json", caption)):
                member = tarfile.TarInfo(f"{number:06d}.{ending}")
                member.size = len(data)
                shard.addfile(member, io.BytesIO(data))


def write(folder: Path, *, each: int = 16, held_out_each: int = 5, per_shard: int = 2_000) -> None:
    """Write the shards and the list of captions that are held out."""
    train, held_out = split()
    folder.mkdir(parents=True, exist_ok=True)
    rows = list(enumerate(samples(train, each, seed=1)))
    for shard, start in enumerate(range(0, len(rows), per_shard)):
        write_shard(folder / f"train-{shard:04d}.tar", rows[start : start + per_shard])
    write_shard(folder / "held-out.tar", enumerate(samples(held_out, held_out_each, seed=2)))
    captions = [scene.caption for scene in held_out]
    (folder / "held-out.txt").write_text("".join(f"{caption}\n" for caption in captions), encoding="utf-8")
    print(f"{len(rows):,} pictures of {len(train)} combinations, and {len(held_out)} combinations held out: {folder}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--each", type=int, default=16, help="pictures of each combination (default: 16)")
    arguments = parser.parse_args()
    write(arguments.folder, each=arguments.each)
