"""Image files on one machine: preprocessing beside open_clip's, and how near `zoo embed` comes to what bounds it.

    python tests/benchmarks/bench_files.py [--images 5000] [--model vit-b32]

The JPEGs, 512 pixels on their shorter side and half of them square, are cut at random from the two photographs that
scikit-learn ships, enlarged a little, flipped and turned; grain makes up for the sharpness that is lost, so that they
have as many bytes a pixel as the photographs. How many depends on the quality, and with them the time of Huffman
decoding, which is the same for all; so preprocessing is measured at several. It is measured on one thread in CPU time.
Embedding is given all cores: the bound is the smaller of the rates of reading alone and of the model alone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

sys.path.insert(0, str(Path(__file__).parents[1]))

import zoo
from zoo.embeddings.encode import Pace, embed_images
from zoo.embeddings.store import open_set

SHORT, LONG = 512, 683
GRAIN = 2.0
"""Standard deviation in steps of 1/255; with it, bits a pixel at qualities 75 to 95 are those of the photographs."""
SETTINGS: dict[str, dict[str, Any]] = {
    "75, 4:2:0": {"quality": 75},
    "90, 4:2:0": {"quality": 90},
    "95, 4:2:0": {"quality": 95},
    "95, 4:4:4": {"quality": 95, "subsampling": "4:4:4"},
}
USUAL = "90, 4:2:0"
"""The quality of the pictures that are embedded."""
DISTINCT = 1000
"""Different pictures; the others are copies of them."""
OTHERS = 500
"""Pictures at the other qualities."""

Calls = Mapping[str, Callable[[Any], Any]]


def photographs() -> Iterable[Image.Image]:
    """Yield different pictures for ever."""
    originals = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    rng = np.random.default_rng(0)
    while True:
        width, height = ((SHORT, SHORT), (LONG, SHORT))[rng.integers(2)]
        original = originals[rng.integers(len(originals))]
        least = max(width / original.width, height / original.height)
        scale = rng.uniform(least, 1.3 * least)
        crop = width / scale, height / scale
        left, top = rng.uniform(0, original.width - crop[0]), rng.uniform(0, original.height - crop[1])
        box = left, top, left + crop[0], top + crop[1]
        pixels = np.asarray(original.resize((width, height), Image.Resampling.LANCZOS, box))
        pixels = (pixels + rng.normal(0, GRAIN, (height, width, 1))).clip(0, 255).astype(np.uint8)
        pixels = pixels.transpose(1, 0, 2) if rng.integers(2) else pixels
        yield Image.fromarray(np.ascontiguousarray(pixels[:, ::-1] if rng.integers(2) else pixels))


def make_files(folder: Path, count: int) -> dict[str, list[str]]:
    """Write pictures at all settings; there are fewer of those that are not the usual one."""
    made: dict[str, list[str]] = {name: [] for name in SETTINGS}
    for number, picture in zip(range(min(count, DISTINCT)), photographs(), strict=False):
        for name, options in SETTINGS.items():
            if name == USUAL or number < OTHERS:
                path = folder / f"{number:05}-{name.replace(', ', '-').replace(':', '')}.jpg"
                picture.save(path, **options)
                made[name].append(str(path))
    for number in range(DISTINCT, count):
        path = folder / f"{number:05}.jpg"
        path.write_bytes(Path(made[USUAL][number % DISTINCT]).read_bytes())
        made[USUAL].append(str(path))
    return made


def milliseconds(calls: Calls, inputs: Mapping[str, list[Any]], rounds: int) -> dict[str, float]:
    """Return the process CPU time of each call for one of its inputs: the median of rounds, each over other inputs."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name, call in calls.items():
            share = inputs[name][number::rounds]
            start = time.process_time()
            for one in share:
                call(one)
            samples[name].append((time.process_time() - start) / len(share) * 1000)
    return {name: statistics.median(times) for name, times in samples.items()}


def preprocessing(files: Mapping[str, list[str]], rounds: int) -> None:
    theirs = open_clip.image_transform(224, is_train=False)
    calls: Calls = {
        "open_clip": lambda path: theirs(Image.open(path)),
        **{
            engine: zoo.preprocess(zoo.config("vit-b32", [f"preprocess.engine={engine}"]))
            for engine in ("torch", "pil")
        },
    }
    print("| JPEG quality | bytes | bits a pixel | open_clip, images/s | zoo, `torch` | ratio | zoo, `pil` | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for name, paths in files.items():
        size = statistics.mean(Path(path).stat().st_size for path in paths)
        bits = 8 * size / statistics.mean(SHORT * max(Image.open(path).size) for path in paths)
        took = milliseconds(calls, dict.fromkeys(calls, paths), rounds)
        base, fast, exact = took["open_clip"], took["torch"], took["pil"]
        row = f"| {name} | {size:,.0f} | {bits:.2f} | {1000 / base:.0f} "
        print(f"{row}| {1000 / fast:.0f} | {base / fast:.2f} | {1000 / exact:.0f} | {base / exact:.2f} |", flush=True)


def stages(paths: list[str], rounds: int) -> None:
    """Print where the time goes: the same stages of both, each over what the one before it gave."""
    engine = zoo.preprocess(zoo.config("vit-b32"))._engine
    resize, centre, _, to_tensor, normalize = open_clip.image_transform(224, is_train=False).transforms
    mine: dict[str, Callable[[Any], Any]] = {
        "read and decode": engine.open,
        "resize and crop": lambda sheet: engine.crop(
            engine.resample(sheet, fitted(engine.size(sheet))), 0, 0, (224, 224)
        ),
        "normalise": engine.pixels,
    }
    theirs: dict[str, Callable[[Any], Any]] = {
        "read and decode": lambda path: Image.open(path).convert("RGB"),
        "resize and crop": lambda picture: centre(resize(picture)),
        "normalise": lambda picture: normalize(to_tensor(picture)),
    }
    print("| stage, ms | open_clip | zoo |\n|---|---|---|")
    inputs: list[list[Any]] = [paths, paths]
    for name in mine:
        calls = {"open_clip": theirs[name], "zoo": mine[name]}
        took = milliseconds(calls, dict(zip(calls, inputs, strict=True)), rounds)
        print(f"| {name} | {took['open_clip']:.2f} | {took['zoo']:.2f} |")
        inputs = [[call(one) for one in given] for call, given in zip(calls.values(), inputs, strict=True)]


def fitted(size: tuple[int, int]) -> tuple[int, int]:
    return 224 * size[0] // min(size), 224 * size[1] // min(size)


def agreement(model: Any, paths: list[str]) -> None:
    """Print how far pixels and features are from those of open_clip's preprocessing."""
    theirs = open_clip.image_transform(224, is_train=False)
    exact = torch.stack([theirs(Image.open(path)) for path in paths])
    fast = model.preprocess.batch(paths)
    steps = (fast - exact).abs() * 255 * torch.tensor(model.preprocess.config.std).view(3, 1, 1)
    with torch.inference_mode():
        features = [model.encode_image(images, normalize=True) for images in (fast, exact)]
    print("| pixels off by 1/255 | by more | features' least cosine |\n|---|---|---|")
    cosine = (features[0] * features[1]).sum(-1).min()
    print(f"| {(steps > 0.5).float().mean():.2%} | {(steps > 1.5).float().mean():.4%} | {cosine:.6f} |")


def embedding(model: Any, paths: list[str], folder: Path) -> None:
    def rate(pieces: Any) -> float:
        start = time.perf_counter()
        count = sum(len(batch) for batch, _ in pieces)
        return count / (time.perf_counter() - start)

    encode = model.encode_image
    batch = torch.randn(32, 3, *model.visual.image_size)

    def model_only() -> float:
        with torch.inference_mode():
            encode(batch, normalize=True)
            return rate(([0] * 32, encode(batch, normalize=True)) for _ in range(max(1, len(paths) // 64)))

    before = model_only()
    model.encode_image = lambda images, normalize: torch.zeros(len(images), 1)
    read_only = rate(embed_images(model, paths, refused=print))
    model.encode_image = encode
    pace = Pace()
    with open_set(folder / "set", model.visual.output_dim, {}) as made:
        start = time.perf_counter()
        for ids, rows in embed_images(model, paths, refused=made.refuse, pace=pace):
            made.add(ids, rows)
        both = len(paths) / (time.perf_counter() - start)
    alone = statistics.harmonic_mean([before, model_only()])  # half of the images before, half after
    bound = min(alone, read_only)
    print("| reading alone | model alone | zoo embed | of the smaller | held up by |\n|---|---|---|---|---|")
    print(f"| {read_only:.0f}/s | {alone:.1f}/s | {both:.1f}/s | {both / bound:.0%} | {pace.bottleneck} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--model", default="vit-b32")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        files = make_files(folder / "images", options.images)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        preprocessing(files, options.rounds)
        stages(files[USUAL][:200], options.rounds)
        torch.set_num_threads(threads)
        model = zoo.build(options.model)
        agreement(model, files[USUAL][:64])
        embedding(model, files[USUAL], folder)


if __name__ == "__main__":
    main()
