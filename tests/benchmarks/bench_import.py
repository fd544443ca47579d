"""Start-up times beside the peer, each in a fresh interpreter, interleaved."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

PROGRAMS = {
    "interpreter alone": "pass",
    "import zoo": "import zoo",
    "zoo.list_models()": "import zoo; zoo.list_models()",
    "zoo.config('vit-b16')": "import zoo; zoo.config('vit-b16')",
    "zoo --help": "import sys; sys.argv = ['zoo', '--help']; from zoo.commands.app import main; main()",
    "zoo list": "import sys; sys.argv = ['zoo', 'list']; from zoo.commands.app import main; main()",
    "import torch": "import torch",
    "import open_clip": "import open_clip",
}


def measure(rounds: int) -> dict[str, float]:
    """Return the median wall time in seconds of each program, over rounds that run every one of them in turn."""
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(rounds):
        for name, program in PROGRAMS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Print the medians, and the ratio of each to the peer's import."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    medians = measure(arguments.rounds)
    alone = medians["interpreter alone"]
    rows = [
        {"program": name, "seconds": round(seconds, 4), "beyond the interpreter": round(seconds - alone, 4)}
        for name, seconds in medians.items()
    ]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        ratio = medians["import open_clip"] / row["seconds"]
        print(f"{row['program']:24} {row['seconds']:8.3f} s   open_clip / this: {ratio:6.1f}")


if __name__ == "__main__":
    main()
