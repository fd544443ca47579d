"""Time of encode_image and encode_text beside open_clip's, with the same weights, on one thread.

    python tests/benchmarks/bench_towers.py [--json] [--rounds 5]

The two take turns, so that a busy machine slows both alike; medians of CPU and of wall time are printed. The
ratio is ours to theirs in CPU time: below 1, ours is faster. Features are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import zoo
from peer import captions, images, peer_config, randomized, tiny_arguments

Row = dict[str, Any]

SETTINGS = [("tiny", 1), ("tiny", 16), ("vit-b32", 8), ("vit-b32", 16)]
TINY_REPEATS = 50
"""Calls within one measurement of the tiny model, which alone would be too short for the clock."""


def pair(name: str) -> tuple[Any, Any]:
    """Return our model and the peer's on one set of weights."""
    arguments = tiny_arguments() if name == "tiny" else peer_config(name)
    theirs: Any = randomized(open_clip.CLIP(**arguments)).eval()
    with torch.device("meta"):
        ours = zoo.CLIP(**arguments).eval()
    ours.load_state_dict(theirs.state_dict(), assign=True)
    return ours, theirs


def timed(call: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Return CPU and wall milliseconds of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(repeats):
        call()
    return (
        (time.process_time() - cpu) * 1e3 / repeats,
        (time.perf_counter() - wall) * 1e3 / repeats,
    )


def compare(name: str, side: str, ours: Any, theirs: Any, given: torch.Tensor, rounds: int) -> Row:
    """Return medians of interleaved rounds of one method of both."""
    repeats = TINY_REPEATS if name == "tiny" else 1
    calls = [getattr(model, f"encode_{side}") for model in (ours, theirs)]
    torch.testing.assert_close(*(call(given) for call in calls), rtol=0, atol=1e-5)
    samples: list[list[tuple[float, float]]] = [[], []]
    for number in range(rounds):
        for index in (0, 1) if number % 2 else (1, 0):  # neither always goes first
            samples[index].append(timed(lambda call=calls[index]: call(given), repeats))
    medians = [[statistics.median(values) for values in zip(*sample, strict=True)] for sample in samples]
    return {
        "model": name,
        "side": side,
        "batch": len(given),
        "ours_cpu_ms": medians[0][0],
        "theirs_cpu_ms": medians[1][0],
        "ours_wall_ms": medians[0][1],
        "theirs_wall_ms": medians[1][1],
        "ratio": medians[0][0] / medians[1][0],
    }


def measure(rounds: int) -> list[Row]:
    """Return one row for each model, batch size and side."""
    rows: list[Row] = []
    pairs = {name: pair(name) for name, _ in SETTINGS}
    with torch.inference_mode():
        for name, count in SETTINGS:
            ours, theirs = pairs[name]
            for side, given in (("image", images(ours, count)), ("text", captions(ours, count))):
                rows.append(compare(name, side, ours, theirs, given, rounds))
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each side, at least 5")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(max(5, options.rounds))
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    columns = ("ours cpu", "theirs cpu", "ours wall", "theirs wall", "ratio")
    print(f"{'model':8} {'side':6} {'batch':>5} " + " ".join(f"{column:>11}" for column in columns))
    for row in rows:
        times = " ".join(
            f"{row[key]:9.2f}ms" for key in ("ours_cpu_ms", "theirs_cpu_ms", "ours_wall_ms", "theirs_wall_ms")
        )
        print(f"{row['model']:8} {row['side']:6} {row['batch']:5} {times} {row['ratio']:11.2f}")


if __name__ == "__main__":
    main()
