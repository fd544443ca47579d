"""Cost of one training step beside open_clip's, and of one in chunks beside one of the whole batch, on one thread.

    python tests/benchmarks/bench_training.py [--batch 16] [--words 24] [--rounds 4] [--model vit-b32]

Both sides take the whole step: both towers, contrastive loss, gradients, clipping, AdamW with two groups, the bounds of
the logit scale. Each runs in a process of its own, so that its memory is known, and the two take turns; the least CPU time
of a step counts, since a busy machine only adds to it. Ours cuts a batch to its longest caption, where open_clip pads all
to the context length. The losses of the first step are compared before anything is timed.
Chunks are measured with a small model, by CPU time and by the bytes that autograd keeps.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
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
from support.activations import ActivationMeter
from support.peer import images, peer_config, randomized, tiny_arguments
from zoo.training.gradients.clip import clip_gradients
from zoo.training.gradients.step import clamp_logit_scale, contrastive_step
from zoo.training.optimization.optimizer import build_optimizer
from zoo_core.config import OptimizerConfig, Section

RATE = 1e-6
"""Learning rate: small, since the steps are there to be timed."""
SMALL = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 96, "patch_size": 16, "width": 192, "layers": 6, "head_width": 64},
    "text_cfg": {"context_length": 32, "vocab_size": 1024, "width": 192, "heads": 3, "layers": 6},
}
BATCH, CHUNK = 256, 16

Step = Callable[[Tensor, Tensor], float]


def our_step(model: Any) -> Step:
    """Return a function that trains our model for a step and returns the loss before it."""
    keys = {"lr": RATE, "betas": [0.9, 0.98], "eps": 1e-6}
    config = Section(OptimizerConfig, "adamw").parse(keys, "optimizer", zoo.registry())
    optimizer, loss = build_optimizer(config, model, zoo.registry()), zoo.loss("contrastive")

    def step(image: Tensor, text: Tensor) -> float:
        optimizer.zero_grad()
        result = contrastive_step(model, loss, {"image": image, "text": text})
        clip_gradients(model, 1.0)
        optimizer.step()
        clamp_logit_scale(model, 1.0, 100.0)
        return result.loss.item()

    return step


def their_step(model: Any) -> Step:
    """Return a function that does what open_clip's loop does."""
    named = list(model.named_parameters())
    plain = {n for n, p in named if p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n}
    groups = [
        {"params": [p for n, p in named if n in plain], "weight_decay": 0.0},
        {"params": [p for n, p in named if n not in plain], "weight_decay": 0.2},
    ]
    optimizer, loss = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98), eps=1e-6), ClipLoss()

    def step(image: Tensor, text: Tensor) -> float:
        optimizer.zero_grad()
        losses = loss(**model(image, text), output_dict=True)
        total = sum(losses.values())
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, norm_type=2.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.6052)
        return total.item()

    return step


def serve(side: str, name: str, batch: int, words: int) -> None:
    """Take a step for each line of the input; print its loss, its CPU milliseconds, and the peak of memory in MiB."""
    torch.set_num_threads(1)
    arguments = tiny_arguments() if name == "tiny" else peer_config(name)
    model: Any = randomized(open_clip.CLIP(**arguments, output_dict=True))
    if side == "ours":
        theirs, model = model, zoo.CLIP(**arguments, output_dict=True)
        model.load_state_dict(theirs.state_dict())
        del theirs
    step = (our_step if side == "ours" else their_step)(model.train())
    vocabulary = arguments["text_cfg"]["vocab_size"]
    size, context = arguments["vision_cfg"]["image_size"], arguments["text_cfg"]["context_length"]
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(batch, 3, size, size, generator=generator)
    text = torch.zeros(batch, context, dtype=torch.int64)
    for number, row in enumerate(text):  # captions of several lengths, the last one the longest
        count = min(context - 2, max(1, words * (number + 1) // batch))
        row[0], row[count + 1] = vocabulary - 2, vocabulary - 1
        row[1 : count + 1] = torch.randint(3, vocabulary - 2, (count,), generator=generator)
    for _ in sys.stdin:
        start = time.process_time()
        loss = step(image, text)
        spent = (time.process_time() - start) * 1e3
        print(loss, spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)


def measure_sides(name: str, batch: int, words: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Return of either side the least CPU milliseconds of a step, and the peak of memory in MiB.

    It is called first, since a process inherits the peak of the one that starts it.
    """
    command = [sys.executable, __file__, "--model", name, "--batch", str(batch), "--words", str(words), "--side"]
    sides = {
        side: subprocess.Popen([*command, side], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for side in ("theirs", "ours")
    }
    lines: dict[str, list[list[float]]] = {side: [] for side in sides}
    for _ in range(rounds + 1):  # the first makes the optimizer's state
        for side, process in sides.items():
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write("step\n")
            process.stdin.flush()
            lines[side].append([float(part) for part in process.stdout.readline().split()])
    for process in sides.values():
        process.communicate()
    first = [rows[0][0] for rows in lines.values()]
    assert abs(first[0] - first[1]) < 1e-4, first
    return {side: (min(row[1] for row in rows[1:]), rows[-1][2]) for side, rows in lines.items()}


def measure_chunks(rounds: int) -> tuple[float, float]:
    """Return what 256 samples in chunks of 16 cost: time of that of the whole, activations of those of 16."""
    torch.set_num_threads(1)
    model: Any = randomized(zoo.CLIP(**SMALL)).train()
    loss = zoo.loss("contrastive")
    text = torch.randint(3, 1000, (BATCH, 32))
    text[:, -1] = 1023
    inputs = {"image": images(model, BATCH), "text": text}

    def step(count: int, chunk: int | None) -> None:
        model.zero_grad()
        contrastive_step(model, loss, {name: value[:count] for name, value in inputs.items()}, chunk=chunk)

    def seconds(chunk: int | None) -> float:
        start = time.process_time()
        step(BATCH, chunk)
        return time.process_time() - start

    def activations(count: int, chunk: int | None) -> int:
        with ActivationMeter(model, inputs.values()) as meter:
            step(count, chunk)
        return meter.peak

    activity = activations(BATCH, CHUNK) / activations(CHUNK, None)
    times = [(seconds(None), seconds(CHUNK)) for _ in range(rounds)]
    return min(one for _, one in times) / min(one for one, _ in times), activity


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit-b32", help="a native architecture, or 'tiny'")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--words", type=int, default=24, help="tokens of the longest caption")
    parser.add_argument("--rounds", type=int, default=4, help="measurements of each side")
    parser.add_argument("--side", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.side:
        serve(options.side, options.model, options.batch, options.words)
        return
    sides = measure_sides(options.model, options.batch, options.words, options.rounds)
    (their_time, their_memory), (our_time, our_memory) = sides["theirs"], sides["ours"]
    print(f"\n{os.cpu_count()} cores, one thread each, torch {torch.__version__}\n")
    print("| model | batch | longest caption | open_clip, ms | zoo, ms | share | open_clip, MiB | zoo, MiB | share |")
    print("|---|---|---|---|---|---|---|---|---|")
    row = [
        options.model,
        options.batch,
        options.words,
        f"{their_time:.4g}",
        f"{our_time:.4g}",
        f"{our_time / their_time:.2f}",
    ]
    row += [f"{their_memory:.0f}", f"{our_memory:.0f}", f"{our_memory / their_memory:.2f}"]
    print(f"| {' | '.join(map(str, row))} |\n")
    ratio, activity = measure_chunks(options.rounds)
    print(f"{BATCH} in chunks of {CHUNK}: {ratio:.2f} times the CPU time of the whole", end=", ")
    print(f"{activity:.2f} times the activations of {CHUNK}")


if __name__ == "__main__":
    main()
