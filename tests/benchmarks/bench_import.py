"""Start-up times beside the peer, each in a fresh interpreter, interleaved.

    python tests/benchmarks/bench_import.py [--rounds 7] [--json]

Processor time leaves out waiting for other programs. Bytecode is written before the first round, as installing does.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

PROGRAMS = {
    "interpreter alone": "pass",
    "import pydantic": "from pydantic import BaseModel",
    "import zoo": "import zoo",
    "zoo.list_models()": "import zoo; zoo.list_models()",
    "zoo.config('vit-b16')": "import zoo; zoo.config('vit-b16')",
    "zoo --help": "import sys; sys.argv = ['zoo', '--help']; from zoo.cli.app import main; main()",
    "zoo list": "import sys; sys.argv = ['zoo', 'list']; from zoo.cli.app import main; main()",
    "import torch": "import torch",
    "import open_clip": "import open_clip",
}

COMPILED = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


def run(program: str) -> tuple[float, float]:
    """Return the wall time and the processor time of a fresh interpreter in seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL, env=COMPILED)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(rounds: int) -> dict[str, tuple[float, float]]:
    """Return the median wall and processor time of each program, over rounds that run every one of them in turn."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in PROGRAMS}
    for number in range(rounds + 1):
        for name, program in PROGRAMS.items():
            taken = run(program)
            if number:
                times[name].append(taken)
    return {name: tuple(map(statistics.median, zip(*taken, strict=True))) for name, taken in times.items()}


def main() -> None:
    """Print the medians, and the ratio of each to the peer's import."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    medians = measure(arguments.rounds)
    rows = [
        {"program": name, "seconds": round(wall, 4), "processor seconds": round(processor, 4)}
        for name, (wall, processor) in medians.items()
    ]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    _, peer = medians["import open_clip"]
    print(f"{'':24}{'wall, s':>10}{'processor, s':>14}{'open_clip / this':>18}")
    for name, (wall, processor) in medians.items():
        print(f"{name:24}{wall:10.3f}{processor:14.3f}{peer / processor:18.1f}")


if __name__ == "__main__":
    main()
