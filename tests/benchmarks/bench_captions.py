"""Captions and zero-shot heads through ViT-B/32's text tower beside open_clip, from strings to features.

    python tests/benchmarks/bench_captions.py [--captions 2048] [--classes 10]

The peer encodes whole rows in batches of 64; ours is given everything at once. Both hold the same weights and take as
many threads as torch does by itself. A head has 80 templates a class; the classes are as many as asked for, since the
peer needs an hour for 1,000 on two cores, and its time is proportional to them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench_tokenizer import captions
from bench_towers import peer_of

import zoo
from zoo.evaluation.templates import template_set

BATCH = 64


def seconds(call: Callable[[], Any]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def encode_peer(model: Any, texts: list[str]) -> torch.Tensor:
    """Return the peer's features of captions, batch by batch."""
    tokenize = open_clip.get_tokenizer("ViT-B-32")
    parts = [model.encode_text(tokenize(texts[at : at + BATCH]), normalize=True) for at in range(0, len(texts), BATCH)]
    return torch.cat(parts)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=10, help="at least 2")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    theirs: Any = peer_of("vit-b32")
    ours = zoo.build("vit-b32")
    ours.load_state_dict(theirs.state_dict(), assign=True)
    texts = captions(options.captions)
    labels = [f"thing number {number}" for number in range(options.classes)]
    templates = [template.format for template in template_set("imagenet-80")]
    jobs = {
        f"{len(texts):,} captions": (
            lambda: ours.encode_text(texts, normalize=True),
            lambda: encode_peer(theirs, texts),
        ),
        f"head of {len(labels)} x 80": (
            lambda: zoo.ZeroShotClassifier(ours, labels, "imagenet-80").class_features.T,
            lambda: open_clip.build_zero_shot_classifier(
                theirs, open_clip.get_tokenizer("ViT-B-32"), labels, templates
            ),
        ),
    }
    print(f"{torch.get_num_threads()} threads\n| job | zoo, s | open_clip, s | ratio |\n|---|---|---|---|")
    with torch.inference_mode():
        for name, (mine, other) in jobs.items():
            torch.testing.assert_close(mine(), other(), rtol=0, atol=1e-5)
            samples = [[seconds(call) for call in (mine, other)] for _ in range(options.rounds)]
            medians = [statistics.median(times) for times in zip(*samples, strict=True)]
            print(f"| {name} | {medians[0]:.2f} | {medians[1]:.2f} | {medians[1] / medians[0]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
