"""Time and peak memory of a loss and its gradients, by batch and chunk size, beside open_clip's; one thread.

    python tests/benchmarks/bench_losses.py [--json] [--rounds 5] [--batches 512 2048 8192] [--chunks] [--loss contrastive]

The settings of one batch size take turns, so that a busy machine slows all alike; the least CPU time of each is
printed. Memory is how far one step, in a process of its own, raises the peak of resident memory. The peer holds more
than four matrices of similarities at once; where the machine has no room for five, it is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss as PeerClipLoss
from open_clip.loss import SigLipLoss as PeerSigLipLoss
from torch import Tensor

import zoo

Row = dict[str, Any]

WIDTH = 512
PEERS = {"contrastive": PeerClipLoss, "sigmoid": PeerSigLipLoss}
CHUNKS: tuple[int | None, ...] = (None, 128, 256, 512, 1024, 2048, 4096, 8192)


def settings(loss: str, batch: int, chunks: tuple[int | None, ...]) -> dict[str, Callable[..., Tensor]]:
    """Return the losses to compare, by name: the peer's and ours with each chunk size that the batch has room for."""
    ours = {str(size or "default"): zoo.loss(loss, chunk_size=size) for size in chunks if size is None or size <= batch}
    return {"peer": PEERS[loss](), **ours} if 5 * 4 * batch**2 < available() else ours


def available() -> int:
    """Return the bytes of memory that the machine can give."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def inputs_of(batch: int) -> list[Tensor]:
    """Return features, logit scale and logit bias that want gradients."""
    features = F.normalize(torch.randn(2, batch, WIDTH, generator=torch.Generator().manual_seed(0)), dim=-1)
    return [one.detach().requires_grad_() for one in (*features, torch.tensor(50.0), torch.tensor(-10.0))]


def step(loss: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """Return the value and all gradients."""
    value = loss(*inputs)
    return [value.detach(), *torch.autograd.grad(value, inputs)]


def peak_mib(loss: Callable[..., Tensor], inputs: list[Tensor]) -> float:
    """Return by how much a step raises the peak of this process's resident memory, in MiB."""
    receive, send = get_context("fork").Pipe(duplex=False)

    def measure() -> None:
        with open("/proc/self/statm") as pages:  # noqa: PTH123
            before = int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        step(loss, inputs)
        send.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)

    child = get_context("fork").Process(target=measure)
    child.start()
    child.join()
    return receive.recv() / 2**20


def cpu_ms(loss: Callable[..., Tensor], inputs: list[Tensor]) -> float:
    """Return the CPU milliseconds of a step."""
    start = time.process_time()
    step(loss, inputs)
    return (time.process_time() - start) * 1e3


def measure(loss: str, batch: int, rounds: int, chunks: tuple[int | None, ...]) -> list[Row]:
    """Return one row for each setting of a batch size, whose results are compared before anything is timed."""
    inputs, compared = inputs_of(batch), settings(loss, batch, chunks)
    memory = {name: peak_mib(one, inputs) for name, one in compared.items()}
    expected = step(next(iter(compared.values())), inputs)
    for one in list(compared.values())[1:]:
        torch.testing.assert_close(step(one, inputs), expected, rtol=1e-4, atol=1e-5)
    times: dict[str, list[float]] = {name: [] for name in compared}
    for _ in range(rounds):
        for name, one in compared.items():
            times[name].append(cpu_ms(one, inputs))
    return [
        {"loss": loss, "batch": batch, "chunk": name, "cpu_ms": min(times[name]), "peak_mib": memory[name]}
        for name in compared
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each setting")
    parser.add_argument("--batches", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192])
    parser.add_argument(
        "--chunks", type=int, nargs="*", help="chunk sizes beside the default one; several where absent"
    )
    parser.add_argument("--loss", choices=sorted(PEERS), nargs="+", default=sorted(PEERS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    chunks = CHUNKS if options.chunks is None else (None, *options.chunks)
    pairs = [(loss, batch) for loss in options.loss for batch in options.batches]
    rows = [row for loss, batch in pairs for row in measure(loss, batch, options.rounds, chunks)]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'loss':12} {'batch':>6} {'chunk':>8} {'cpu':>11} {'peak':>11}")
    for row in rows:
        print(
            f"{row['loss']:12} {row['batch']:6} {row['chunk']:>8} {row['cpu_ms']:9.1f}ms {row['peak_mib']:8.1f}MiB",
        )


if __name__ == "__main__":
    main()
