"""Engines of preprocessing: how far their pixels and features are from Pillow's, and how fast raw pixels go in batches.

    python tests/benchmarks/bench_engines.py [--batch 64] [--rounds 7]

Pictures are the two photographs of scikit-learn, whole, turned and in parts, and drawn ones, preprocessed to 224 pixels:
bicubic and bilinear with a crop, and squashed. The reference is the engine `pil`. What GPUs compute is computed here on
the CPU, in float. Features are those of ViT-B/32 with random weights and of digits-tiny, each with its own image size;
the least cosine is shown. Times are process CPU time of one thread, medians of interleaved rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor
from torchvision.transforms import v2

sys.path.insert(0, str(Path(__file__).parents[1]))

import zoo
from support.images import MEAN, STD, picture
from support.peer import randomized
from zoo_images.config import ImageConfig
from zoo_images.engines import TorchEngine
from zoo_images.preprocessor import ImagePreprocessor

PLAIN: dict[str, Any] = {"mean": [0, 0, 0], "std": [1, 1, 1]}


class Float(TorchEngine):
    """What GPUs compute."""

    def _resampled(self, batch: Tensor, size: tuple[int, int]) -> Tensor:
        return self.resample_in_float(batch, size)


class AtOnce(TorchEngine):
    """What torchvision computes on GPUs: both sides at once, rounded at the end."""

    def _resampled(self, batch: Tensor, size: tuple[int, int]) -> Tensor:
        return self._scaled(batch.float(), size).round_().clamp_(0, 255).to(torch.uint8)


ENGINES: dict[str, type[TorchEngine]] = {
    "`torch`, on the CPU": TorchEngine,
    "`torch`, as on a GPU": Float,
    "torchvision, as on a GPU": AtOnce,
}


def photographs() -> list[Tensor]:
    """Uint8 `[1, 3, H, W]`: photographs, upright and turned, and parts of them."""
    found: list[Tensor] = []
    for name in ("china.jpg", "flower.jpg"):
        whole = torch.from_numpy(np.array(load_sample_image(name))).permute(2, 0, 1)[None]
        turned = whole.transpose(2, 3).contiguous()
        found += [whole, turned, whole[..., 40:400, 100:460].contiguous(), whole[..., ::2, ::2].contiguous()]
    return found


def drawn(sizes: list[tuple[int, int]]) -> list[Tensor]:
    images = [picture(width, height, seed=seed) for seed, (width, height) in enumerate(sizes)]
    return [torch.from_numpy(np.array(one)).permute(2, 0, 1)[None] for one in images]


def noise(sizes: list[tuple[int, int]]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (1, 3, h, w), generator=generator, dtype=torch.uint8) for w, h in sizes]


SIZES = [(640, 480), (480, 640), (500, 375), (300, 900), (1024, 768), (257, 256)]
PICTURES: dict[str, Callable[[], list[Tensor]]] = {
    "photographs": photographs,
    "drawn": lambda: drawn(SIZES),
    "drawn, that grow": lambda: drawn([(100, 80), (50, 120), (200, 210)]),
    "white noise": lambda: noise([*SIZES, (100, 80)]),
}


def prepared(images: list[Tensor], engine: Any, config: ImageConfig, frame: tuple[int, int]) -> Tensor:
    """Return `[N, 3, H, W]` as an engine makes it; as `pil` does where it is None."""
    made = ImagePreprocessor(config.model_copy(update={"engine": "torch" if engine else "pil"}), image_size=frame)
    if engine:
        made.__dict__["_engine"] = engine(config)
    return torch.cat([made.batch(one) for one in images])


def row(images: list[Tensor], engine: Any, models: list[Any]) -> list[str]:
    """Return the cells of a table: deviation of pixels at 224, and the least cosine for each model."""
    steps: list[Tensor] = []
    cosines = [1.0] * len(models)
    for options in ({}, {"resize_mode": "squash"}, {"interpolation": "bilinear"}):
        found, exact = (prepared(images, one, ImageConfig.parse(PLAIN | options), (224, 224)) for one in (engine, None))
        steps.append(((found - exact) * 255).round().abs().flatten())
        for number, model in enumerate(models):
            config, frame = model.preprocess.config.model_copy(update=options), model.visual.image_size
            one, other = (model.encode_image(prepared(images, kind, config, frame)) for kind in (engine, None))
            cosines[number] = min(cosines[number], F.cosine_similarity(one.double(), other.double()).min().item())
    off = torch.cat(steps)
    one, two = ((off >= least).double().mean().item() for least in (1, 2))
    pixels = [f"{off.max():.0f}/255", f"{off.mean():.4f}/255", f"{one:.2%}", f"{two:.1e}"]
    return pixels + [f"{cosine:.6f}" for cosine in cosines]


@torch.inference_mode()
def deviations() -> None:
    clip = randomized(zoo.build("vit-b32", towers=("image",)))
    digits = zoo.build("digits-tiny", pretrained="demo")
    print("| pictures | what resamples | largest | mean | off by 1 or more | by 2 or more | ViT-B/32 | digits-tiny |")
    print("|---|---|---|---|---|---|---|---|")
    for kind, make in PICTURES.items():
        images = make()
        for name, engine in ENGINES.items():
            print(f"| {kind} | {name} | {' | '.join(row(images, engine, [clip, digits]))} |", flush=True)


def throughput(batch: int, rounds: int) -> None:
    torch.set_num_threads(1)
    ours = zoo.preprocess("vit-b32")
    exact = zoo.preprocess(zoo.config("vit-b32", ["preprocess.engine=pil"]))
    resize = v2.Resize(224, v2.InterpolationMode.BICUBIC, antialias=True)
    scale = v2.ToDtype(torch.float32, scale=True)
    theirs = v2.Compose([resize, v2.CenterCrop(224), scale, v2.Normalize(MEAN, STD)])
    images = torch.cat(drawn([(512, 512)])).repeat(batch, 1, 1, 1)
    arrays = list(images.permute(0, 2, 3, 1).contiguous().numpy())
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{number}.jpg" for number in range(batch)]
        for array, path in zip(arrays, paths, strict=True):
            Image.fromarray(array).save(path, quality=90)
        calls: dict[str, Callable[[], Any]] = {
            "zoo, one tensor `[B, 3, 512, 512]`": lambda: ours.batch(images),
            "zoo, a list of tensors": lambda: ours.batch(list(images)),
            "zoo, arrays": lambda: ours.batch(arrays),
            "zoo, one tensor, engine `pil`": lambda: exact.batch(images),
            "torchvision v2, one tensor": lambda: theirs(images),
            "zoo, JPEG files of the same pictures": lambda: ours.batch(paths),
        }
        samples: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                start = time.process_time()
                call()
                samples[name].append(batch / (time.process_time() - start))
    base = statistics.median(samples["torchvision v2, one tensor"])
    print("\n| pictures of 512 x 512 pixels | images/s, one thread | ratio |\n|---|---|---|")
    for name, rates in samples.items():
        print(f"| {name} | {statistics.median(rates):.0f} | {statistics.median(rates) / base:.2f} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    deviations()
    throughput(options.batch, options.rounds)


if __name__ == "__main__":
    main()
