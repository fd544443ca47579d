"""Runs of several processes, started as users start them: by torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["batches", "torchrun"]

PROGRAM = """
import json, os, signal, sys
from pathlib import Path

import zoo.training
from zoo.training.finish import write_model

options = json.loads(sys.argv[1])
folder, rank = Path(options["out"]), os.environ["RANK"]
with zoo.training.prepare(options["recipe"], out=folder) as run:
    for batch in run:
        killed = Path(f"{folder}.killed-{rank}-{run.done}")
        if [int(rank), run.done] in options["kills"] and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if run.done == options["leave"]:
            break
        result = run.step(batch)
        line = {"step": run.done, "rank": int(rank), "keys": [list(key) for key in batch.keys], "loss": float(result.loss)}
        with open(f"{folder}.batches-{rank}.jsonl", "a") as file:
            file.write(json.dumps(line) + "\\n")
    else:
        write_model(run)
"""


def torchrun(
    processes: int,
    recipe: dict[str, Any],
    out: Path,
    *,
    kills: list[tuple[int, int]] | None = None,
    leave: int | None = None,
    restarts: int = 0,
) -> subprocess.CompletedProcess[str]:
    """Train in several processes.

    Args:
        processes: how many.
        recipe, out: those of `zoo.training.prepare`.
        kills: rank and number of steps that are done, at which a process gets SIGKILL, once.
        leave: number of steps that are done when all processes leave.
        restarts: how often torchrun starts all of them again.
    """
    options = {"recipe": recipe, "out": str(out), "kills": kills or [], "leave": leave}
    program = out.parent / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [*launcher, f"--max-restarts={restarts}", str(program), json.dumps(options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
    return subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment, check=False)


def batches(out: Path) -> dict[int, tuple[list[list[int]], float]]:
    """Return for each step the rows of the whole batch, in the order of ranks, and the loss; the last time counts."""
    lines: dict[int, dict[int, dict[str, Any]]] = {}
    for path in sorted(out.parent.glob(f"{out.name}.batches-*.jsonl")):
        for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            lines.setdefault(line["step"], {})[line["rank"]] = line
    steps: dict[int, tuple[list[list[int]], float]] = {}
    for step, ranks in lines.items():
        size = max(len(line["keys"]) for line in ranks.values())
        keys = [key for rank in sorted(ranks) if len(ranks[rank]["keys"]) == size for key in ranks[rank]["keys"]]
        steps[step] = keys, ranks[0]["loss"]
    return steps
