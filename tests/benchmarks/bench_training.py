"""Time of one training step beside open_clip's, on one thread: both towers, contrastive loss, gradients and SGD.

    python tests/benchmarks/bench_training.py [--batch 16] [--rounds 5] [--model vit-b32]

The two take turns on one batch; medians of process CPU time are printed as a row for docs/benchmarks.md. The losses
of the first step are compared before anything is timed. SGD without momentum keeps two models in 5 GB; what an
optimizer costs is the same for both.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.loss import ClipLoss
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

import zoo
from support.peer import images, peer_config, randomized, tiny_arguments

RATE = 1e-6
"""Learning rate: small, since the steps are there to be timed."""


def pair(name: str) -> tuple[Any, Any]:
    """Return our model and the peer's with equal weights, each with its own."""
    arguments = tiny_arguments() if name == "tiny" else peer_config(name)
    theirs: Any = randomized(open_clip.CLIP(**arguments, output_dict=True)).train()
    ours: Any = zoo.CLIP(**arguments, output_dict=True).train()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def step(model: Any, loss: Callable[..., Any], image: Tensor, text: Tensor) -> Tensor:
    """Take one step and return the loss before it."""
    output = model(image, text)
    value = loss(output["image_features"], output["text_features"], output["logit_scale"])
    value.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.sub_(parameter.grad, alpha=RATE)
            parameter.grad = None
    return value.detach()


def measure(name: str, batch: int, rounds: int) -> tuple[float, float]:
    """Return the median CPU milliseconds of a step of ours and of the peer's."""
    models = pair(name)
    losses = (zoo.loss("contrastive"), ClipLoss())
    text = torch.randint(3, models[0].vocab_size - 2, (batch, models[0].context_length))
    text[:, -1] = models[0].vocab_size - 1
    given = (images(models[0], batch), text)
    torch.testing.assert_close(
        *(step(*each, *given) for each in zip(models, losses, strict=True)), rtol=1e-5, atol=1e-5
    )
    samples: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for side in (0, 1) if number % 2 else (1, 0):
            start = time.process_time()
            step(models[side], losses[side], *given)
            samples[side].append((time.process_time() - start) * 1e3)
    return statistics.median(samples[0]), statistics.median(samples[1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit-b32", help="a native architecture, or 'tiny'")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each side")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ours, theirs = measure(options.model, options.batch, options.rounds)
    print("| model | batch | open_clip, ms | zoo, ms | times as fast |")
    print("|---|---|---|---|---|")
    print(f"| {options.model} | {options.batch} | {theirs:.4g} | {ours:.4g} | {theirs / ours:.2f} |")


if __name__ == "__main__":
    main()
