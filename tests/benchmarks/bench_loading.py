"""From a file of weights to a model, and from the start of a process to the first feature: zoo and open_clip in one run.

    python tests/benchmarks/bench_loading.py [--model vit-l14] [--large vit-h14] [--runs 3]

Every figure is that of a fresh process, the best of several runs; peak memory is what the system says of that process
(`VmHWM`, so on Linux only), beside the size of the file. Files of full size are made in a temporary folder and removed: for the
default models that takes 4 GB of disk at a time, and as much of the page cache for the files to be warm.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

import zoo
from zoo.materialize.skeleton import skeleton

NAMES = {"vit-b32": "ViT-B-32", "vit-s32": "ViT-S-32", "vit-l14": "ViT-L-14", "vit-h14": "ViT-H-14"}
"""Names of the models in open_clip."""

LOAD_ZOO = """
import sys, time, torch
torch.set_num_threads(int(sys.argv[3]))
import zoo, zoo.building.build, zoo.checkpoints.load
towers = tuple(sys.argv[4].split(","))
start = time.perf_counter()
model = zoo.build(sys.argv[1], pretrained=sys.argv[2], towers=towers)
took = time.perf_counter() - start
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
print(took, peak)
"""
LOAD_PEER = """
import sys, time, torch
torch.set_num_threads(int(sys.argv[3]))
import open_clip
start = time.perf_counter()
model = open_clip.create_model(sys.argv[1], pretrained=sys.argv[2])
took = time.perf_counter() - start
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
print(took, peak)
"""
FIRST_ZOO = """
import sys, time
import torch
torch.set_num_threads(int(sys.argv[3]))
import zoo
model = zoo.build(sys.argv[1], pretrained=sys.argv[2], towers=("image",))
with torch.no_grad():
    model.encode_image(sys.argv[4])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
print(0, peak)
"""
FIRST_PEER = """
import sys, time
import torch
torch.set_num_threads(int(sys.argv[3]))
import open_clip
from PIL import Image
model, _, preprocess = open_clip.create_model_and_transforms(sys.argv[1], pretrained=sys.argv[2])
model.eval()
with torch.no_grad():
    model.encode_image(preprocess(Image.open(sys.argv[4])).unsqueeze(0))
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
print(0, peak)
"""


def run(program: str, *arguments: str) -> tuple[float, float, float]:
    """Return the seconds that a program prints, those that its process took, and its peak memory in bytes."""
    compiled = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}  # as pip does
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, env=compiled)
    took = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(done.stderr)
    seconds, peak = done.stdout.split()[-2:]
    return float(seconds), took, int(peak) * 1024


def best(runs: int, program: str, *arguments: str) -> tuple[float, float, float]:
    """Return the least of each figure."""
    return tuple(map(min, zip(*(run(program, *arguments) for _ in range(runs)), strict=True)))


def write_weights(name: str, path: Path) -> None:
    """Write small random weights of an architecture; random values are drawn once and repeated, to be quick."""
    drawn = torch.randn(1 << 20) * 0.02
    tensors = {
        key: drawn.repeat(-(-value.numel() // len(drawn)))[: value.numel()].reshape(value.shape)
        if value.is_floating_point()
        else torch.zeros(value.shape, dtype=value.dtype)
        for key, value in skeleton(zoo.config(name)).state_dict().items()
    }
    save_file(tensors, path, metadata={"format": "pt"})


def reading(path: Path, runs: int) -> float:
    """Return the seconds that it takes to read a file once."""
    times: list[float] = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run(["cat", path], stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - start)
    return min(times)


def report(what: str, found: float, goal: str) -> None:
    """Print one comparison."""
    print(f"  {what:<58} {found:6.2f}   goal {goal}")


def compare(name: str, path: Path, runs: int, threads: int) -> None:
    """Print how one model loads in both libraries."""
    size, peer = path.stat().st_size, NAMES[name]
    count = str(threads)
    ours, _, our_peak = best(runs, LOAD_ZOO, name, str(path), count, "image,text")
    theirs, _, their_peak = best(runs, LOAD_PEER, peer, str(path), count)
    text, _, text_peak = best(runs, LOAD_ZOO, name, str(path), count, "text")
    print(f"{name}: a file of {size / 1e9:.2f} GB, {threads} threads, best of {runs}")
    print(f"  load                  zoo {ours:6.3f} s   open_clip {theirs:6.3f} s")
    print(f"  peak memory           zoo {our_peak / 1e9:6.2f} GB  open_clip {their_peak / 1e9:6.2f} GB")
    print(f"  text tower alone      zoo {text:6.3f} s, {text_peak / 1e9:.2f} GB")
    report("times faster than open_clip", theirs / ours, ">= 5")
    report("peak memory, as a multiple of the file", our_peak / size, "<= 1.15")
    report("open_clip's peak memory, as a multiple of the file", their_peak / size, "-")
    report("time of the text tower, as a share of both", text / ours, "< 0.33")


def first_feature(name: str, path: Path, runs: int, threads: int, folder: Path) -> None:
    """Print how long it takes from the start of a process to the first image feature."""
    from PIL import Image

    picture = folder / "picture.png"
    Image.effect_noise((300, 260), 80).convert("RGB").save(picture)
    _, ours, _ = best(runs, FIRST_ZOO, name, str(path), str(threads), str(picture))
    _, theirs, _ = best(runs, FIRST_PEER, NAMES[name], str(path), str(threads), str(picture))
    print(f"  process start to first image feature: zoo {ours:.2f} s   open_clip {theirs:.2f} s")
    report("times faster than open_clip", theirs / ours, ">= 2.5")


def large(name: str, path: Path, runs: int, threads: int) -> None:
    """Print how the loading of a large model compares with reading its file."""
    ours, _, peak = best(runs, LOAD_ZOO, name, str(path), str(threads), "image,text")
    read = reading(path, runs)
    print(f"{name}: a file of {path.stat().st_size / 1e9:.2f} GB")
    print(f"  build and load {ours:.3f} s, peak {peak / 1e9:.2f} GB   cat {read:.3f} s")
    report("times as long as reading the file once", ours / read, "<= 1.5")


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit-l14", choices=NAMES)
    parser.add_argument("--large", default="vit-h14", choices=[*NAMES, "none"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "weights.safetensors"
        write_weights(arguments.model, path)
        compare(arguments.model, path, arguments.runs, arguments.threads)
        first_feature(arguments.model, path, arguments.runs, arguments.threads, folder)
        path.unlink()
        if arguments.large != "none":
            write_weights(arguments.large, path)
            large(arguments.large, path, arguments.runs, arguments.threads)


if __name__ == "__main__":
    main()
