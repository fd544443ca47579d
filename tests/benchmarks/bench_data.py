"""CPU time of an image on its way into a batch: zoo's loader, a bare loop with the same preprocessing, and open_clip.

    python tests/benchmarks/bench_data.py [--images 400] [--runs 3] [--workers 0 2]

Photographs of 512 x 512 pixels, JPEG of quality 90, are packed into tar shards in a temporary folder. Each image is
read, decoded, cropped at random to 224 pixels, and collated with the ids of its caption. The bare loop reads the
shards from their beginning to their end, in this process and with zoo's preprocessing; open_clip's pipeline is that of
its training where webdataset is installed, and its transforms and tokenizer in such a loop where it is not. Figures
are CPU time, workers included, the best of several runs in turn.
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
from pathlib import Path

import open_clip
import torch
from open_clip.transform import image_transform
from PIL import Image
from sklearn.datasets import load_sample_images

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


def members(folder: Path) -> Iterator[tuple[bytes, str]]:
    """Yield images and captions as they lie."""
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as archive:
            while (image := archive.next()) is not None:
                caption = archive.next()
                yield archive.extractfile(image).read(), archive.extractfile(caption).read().decode()


def bare(folder: Path, prepare: Callable[[bytes], torch.Tensor], tokenize: Callable[[list[str]], torch.Tensor]) -> int:
    """Take batches in a loop that does nothing else."""
    images, captions, count = [], [], 0
    for content, caption in members(folder):
        images.append(prepare(content))
        captions.append(caption)
        if len(images) == BATCH:
            count += len(torch.stack(images)) + 0 * len(tokenize(captions))
            images, captions = [], []
    return count


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
        runs: dict[str, Callable[[], int]] = {
            "bare loop": lambda: bare(folder, ours, tokenizer),
            "open_clip's transforms in a bare loop": lambda: bare(
                folder, lambda content: theirs(Image.open(io.BytesIO(content)).convert("RGB")), their_tokenizer
            ),
        }
        for workers in options.workers:
            runs[f"zoo, {workers} workers"] = lambda workers=workers: sum(
                map(len, Loader(data, steps=data.steps_per_epoch or 0, workers=workers))
            )
            try:
                import webdataset  # noqa: F401
            except ImportError:
                continue
            runs[f"open_clip's pipeline, {workers} workers"] = lambda workers=workers: webdataset_pipeline(
                folder, workers
            )
        best = dict.fromkeys(runs, float("inf"))
        for _ in range(options.runs):
            for title, run in runs.items():
                best[title] = min(best[title], cpu_time(run))
        report(best)


def report(best: dict[str, float]) -> None:
    peers = [title for title in best if title.startswith("open_clip")]
    print(f"{'CPU ms an image':40} {'':>8} {'of bare':>8} {'of open_clip':>13}")
    for title, took in best.items():
        of_peer = took / min(best[peer] for peer in peers)
        print(f"{title:40} {took:8.2f} {took / best['bare loop']:8.2f} {of_peer:13.2f}")
    print(time.strftime("%Y-%m-%d"), "torch", torch.__version__, "open_clip", open_clip.__version__)


if __name__ == "__main__":
    main()
