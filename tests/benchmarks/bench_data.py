"""CPU time of an image on its way into a batch: zoo's loader, a bare loop with the same preprocessing, and open_clip.

    python tests/benchmarks/bench_data.py [--images 400] [--runs 3] [--workers 0 2]

Photographs of 512 x 512 pixels, JPEG of quality 90, are packed into tar shards in a temporary folder. Each image is
read, decoded, cropped at random to 224 pixels, and collated with the ids of its caption. The bare loop reads the
shards from their beginning to their end, with zoo's preprocessing; open_clip's pipeline is that of its training where
webdataset is installed, and its transforms and tokenizer in such a loop where it is not. Figures are CPU time, workers
included, the best of several runs in turn.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import open_clip
import torch
from open_clip.transform import image_transform
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info

import zoo
from zoo.catalog.architectures import load_config
from zoo.training.data.loader import Loader
from zoo.training.data.open import open_data
from zoo.training.recipe.sections import Data

BATCH, SIDE, SHARDS = 32, 512, 4


def make_shards(folder: Path, images: int) -> None:
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    chance = random.Random(0)
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard}.tar", "w") as archive:
            for index in range(shard, images, SHARDS):
                photograph = chance.choice(photographs)
                side = chance.uniform(0.5, 1) * min(photograph.size)
                left, top = (chance.uniform(0, whole - side) for whole in photograph.size)
                content = io.BytesIO()
                crop = photograph.resize((SIDE, SIDE), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
                crop.save(content, "JPEG", quality=90)
                caption = f"a photo of a temple or of a flower, seen from {int(left)} and {int(top)}".encode()
                for ending, data in (("jpg", content.getvalue()), ("txt", caption)):
                    member = tarfile.TarInfo(f"{index:06}.{ending}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))


class BareLoop(IterableDataset):
    """Batches of the shards as they lie; each worker takes shards of its own."""

    def __init__(self, folder: Path, prepare: Callable[[bytes], torch.Tensor], tokenize: Callable[..., torch.Tensor]):
        self.folder, self.prepare, self.tokenize = folder, prepare, tokenize

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        worker = get_worker_info()
        shards = sorted(self.folder.glob("*.tar"))
        images, captions = [], []
        for shard in shards if worker is None else shards[worker.id :: worker.num_workers]:
            with tarfile.open(shard) as archive:
                while (image := archive.next()) is not None:
                    caption = archive.extractfile(archive.next()).read().decode()
                    images.append(self.prepare(archive.extractfile(image).read()))
                    captions.append(caption)
                    if len(images) == BATCH:
                        yield default_collate(images), self.tokenize(captions)
                        images, captions = [], []

    def count(self, workers: int) -> int:
        return sum(len(images) for images, _ in DataLoader(self, batch_size=None, num_workers=workers))


def webdataset_pipeline(folder: Path, workers: int) -> int:
    """Take batches from the pipeline of open_clip's training."""
    import webdataset as wds

    transform, tokenizer = image_transform(224, is_train=True), open_clip.get_tokenizer("ViT-B-32")
    steps = [
        wds.SimpleShardList(sorted(map(str, folder.glob("*.tar")))),
        wds.split_by_worker,
        wds.tarfile_to_samples(),
        wds.shuffle(100, initial=100),
        wds.decode("pilrgb"),
        wds.rename(image="jpg;png;jpeg;webp", text="txt"),
        wds.map_dict(image=transform, text=lambda text: tokenizer(text)[0]),
        wds.to_tuple("image", "text"),
        wds.batched(BATCH, partial=False),
    ]
    loader = wds.WebLoader(wds.DataPipeline(*steps), batch_size=None, shuffle=False, num_workers=workers)
    return sum(len(images) for images, _ in loader)


def cpu_time(run: Callable[[], int]) -> float:
    """Return the CPU time of an image in milliseconds, that of workers included."""
    before = os.times()
    count = run()
    after = os.times()
    return sum(after[:4]) * 1e3 / count - sum(before[:4]) * 1e3 / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_shards(folder, options.images)
        config = load_config("vit-b32")
        data = open_data(Data.parse({"train": [{"type": "tar", "path": f"{name}/*.tar"}]}), model=config, batch=BATCH)
        ours, theirs = zoo.preprocess("vit-b32", train=True), image_transform(224, is_train=True)
        tokenizer, their_tokenizer = zoo.tokenizer("vit-b32"), open_clip.get_tokenizer("ViT-B-32")
        bare = BareLoop(folder, ours, tokenizer)
        peer = BareLoop(folder, lambda data: theirs(Image.open(io.BytesIO(data)).convert("RGB")), their_tokenizer)
        steps = data.steps_per_epoch or 0
        for workers in options.workers:
            runs: dict[str, Callable[[], int]] = {
                "bare loop": partial(bare.count, workers),
                "open_clip's transforms, bare loop": partial(peer.count, workers),
                "zoo": lambda workers=workers: sum(map(len, Loader(data, steps=steps, workers=workers))),
            }
            if find_spec("webdataset"):
                runs["open_clip's pipeline"] = partial(webdataset_pipeline, folder, workers)
            measure(workers, runs, options.runs)
    print(time.strftime("%Y-%m-%d"), "torch", torch.__version__, "open_clip", open_clip.__version__)


def measure(workers: int, runs: dict[str, Callable[[], int]], rounds: int) -> None:
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds):
        for title, run in runs.items():
            best[title] = min(best[title], cpu_time(run))
    peer = min(took for title, took in best.items() if title.startswith("open_clip"))
    print(f"{f'{workers} workers: CPU ms an image':36} {'':>8} {'of bare':>8} {'of open_clip':>13}")
    for title, took in best.items():
        print(f"{title:36} {took:8.2f} {took / best['bare loop']:8.2f} {took / peer:13.2f}")


if __name__ == "__main__":
    main()
