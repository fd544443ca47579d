"""Image files on one machine: preprocessing beside open_clip's, and how near `zoo embed` comes to what bounds it.

    python tests/benchmarks/bench_files.py [--images 5000] [--model vit-b32]

The JPEGs, 512 pixels wide, are made from smooth noise in a temporary folder. Preprocessing is measured on one thread in
CPU time. Embedding is given all cores: the bound is the smaller of the rates of reading alone and of the model alone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

import zoo
from zoo.embedding import Pace, embed_images
from zoo.embedding_sets import open_set

QUALITY = 90
DISTINCT = 100
"""Different pictures; the others are copies of them."""


def make_files(folder: Path, count: int) -> list[str]:
    rng = np.random.default_rng(0)
    made = [folder / f"{number:05}.jpg" for number in range(count)]
    for number, path in enumerate(made):
        if number >= DISTINCT:
            path.write_bytes(made[number % DISTINCT].read_bytes())
            continue
        coarse = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
        fine = rng.normal(0, 6, (512, 512, 3))
        pixels = np.asarray(coarse.resize((512, 512), Image.Resampling.BICUBIC)) + fine
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=QUALITY)
    return [str(path) for path in made]


def cpu(call: Any, paths: list[str]) -> float:
    """Return images a second of process CPU time."""
    start = time.process_time()
    for path in paths:
        call(path)
    return len(paths) / (time.process_time() - start)


def preprocessing(paths: list[str], rounds: int) -> None:
    theirs = open_clip.image_transform(224, is_train=False)
    calls = {
        "open_clip": lambda path: theirs(Image.open(path)),
        **{
            f"zoo, {engine}": zoo.preprocess(zoo.config("vit-b32", [f"preprocess.engine={engine}"]))
            for engine in ("torch", "pil")
        },
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            samples[name].append(cpu(call, paths[: max(1, len(paths) // rounds)]))
    torch.set_num_threads(threads)
    base = statistics.median(samples["open_clip"])
    print("| preprocessing | images/s, one thread | ratio |\n|---|---|---|")
    for name, rates in samples.items():
        print(f"| {name} | {statistics.median(rates):.0f} | {statistics.median(rates) / base:.2f} |")


def embedding(model: Any, paths: list[str], folder: Path) -> None:
    def rate(pieces: Any) -> float:
        start = time.perf_counter()
        count = sum(len(batch) for batch, _ in pieces)
        return count / (time.perf_counter() - start)

    encode = model.encode_image
    with torch.inference_mode():
        batch = torch.randn(32, 3, *model.visual.image_size)
        encode(batch)
        model_only = rate(([0] * 32, encode(batch)) for _ in range(max(1, len(paths) // 32)))
        model.encode_image = lambda images, normalize: torch.zeros(len(images), 1)
        read_only = rate(embed_images(model, paths, refused=print))
        model.encode_image = encode
    pace = Pace()
    with open_set(folder / "set", model.visual.output_dim, {}) as made:
        start = time.perf_counter()
        for ids, rows in embed_images(model, paths, refused=made.refuse, pace=pace):
            made.add(ids, rows)
        both = len(paths) / (time.perf_counter() - start)
    bound = min(model_only, read_only)
    print("| reading alone | model alone | zoo embed | of the smaller | held up by |\n|---|---|---|---|---|")
    print(f"| {read_only:.0f}/s | {model_only:.1f}/s | {both:.1f}/s | {both / bound:.0%} | {pace.bottleneck} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--model", default="vit-b32")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        paths = make_files(folder / "images", options.images)
        preprocessing(paths, options.rounds)
        embedding(zoo.build(options.model), paths, folder)


if __name__ == "__main__":
    main()
