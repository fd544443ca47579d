"""Speed and peak memory on a CUDA device, beside open_clip with the same weights.

    python tests/benchmarks/bench_gpu.py [--models vit-b32 vit-l14 rn50] [--batch 256] [--rounds 7] [--parts towers ...]

Milliseconds of the device between two events; both take turns, and medians are printed as rows for docs/benchmarks.md.
A ratio is the peer's time by ours: above 1, ours is faster. Features are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss as PeerClipLoss
from open_clip.loss import SigLipLoss as PeerSigLipLoss
from safetensors.torch import save_file
from torch import Tensor
from torchvision.transforms import v2

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from bench_losses import inputs_of, step
from bench_towers import SIDES, given_to, ours_of, peer_of

import zoo
from support.peer import peer_names

Calls = dict[str, Callable[[], Any]]
Times = dict[str, float]

MODELS = ["vit-b32", "rn50", "vit-l14"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PARTS = ("towers", "compiled", "training", "losses", "loading", "pixels")
WARM_UP = 3


def milliseconds(call: Callable[[], Any]) -> float:
    """Return how long the device works at a call."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def medians(calls: Calls, rounds: int) -> Times:
    """Return the median milliseconds of each call, in interleaved rounds."""
    for call in calls.values():
        for _ in range(WARM_UP):
            call()
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name in calls if number % 2 else reversed(calls):
            samples[name].append(milliseconds(calls[name]))
    return {name: statistics.median(values) for name, values in samples.items()}


def peak_mib(call: Callable[[], Any]) -> float:
    """Return how much memory a call holds at most, beside what was held before."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def row(*cells: object) -> None:
    """Print one row of a table."""
    print("|", " | ".join(f"{one:.4g}" if isinstance(one, float) else str(one) for one in cells), "|", flush=True)


def pair(name: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """Return open_clip's model and ours, of the same weights, on the device."""
    theirs = peer_of(name)
    ours = ours_of(name, {key: value.clone() for key, value in theirs.state_dict().items()})
    return theirs.to("cuda", dtype), ours.to("cuda", dtype)


def towers(names: list[str], batch: int, rounds: int) -> None:
    """Compare the towers, in each dtype."""
    row("model", "input", "dtype", "open_clip, ms", "zoo, ms", "times as fast", "least cosine")
    for name in names:
        for label, dtype in DTYPES.items():
            theirs, ours = pair(name, dtype)
            with torch.inference_mode():
                for side in SIDES[name]:
                    given = given_to(ours, side, batch).to("cuda")
                    given = given.to(dtype) if given.is_floating_point() else given
                    method = f"encode_{side.split()[-1]}"
                    compare(name, side, label, theirs, ours, method, given, rounds)
            del theirs, ours
            clear()


def compare(name: str, side: str, label: str, theirs: Any, ours: Any, method: str, given: Tensor, rounds: int) -> None:
    """Print the row of one method."""
    calls: Calls = {kind: partial(getattr(one, method), given) for kind, one in (("peer", theirs), ("zoo", ours))}
    features = [call().double() for call in calls.values()]
    cosine = float(F.cosine_similarity(*features).min())
    assert cosine > (0.99999 if label == "float32" else 0.99), (name, side, label, cosine)
    found = medians(calls, rounds)
    row(name, side, label, found["peer"], found["zoo"], found["peer"] / found["zoo"], f"{cosine:.6f}")


def compiled(names: list[str], batch: int, rounds: int) -> None:
    """Compare the towers under torch.compile, in bfloat16."""
    row("model, compiled", "input", "dtype", "open_clip, ms", "zoo, ms", "times as fast", "least cosine")
    for name in names:
        theirs, ours = pair(name, torch.bfloat16)
        with torch.inference_mode():
            for side in SIDES[name]:
                if side == "short text":
                    continue
                given = given_to(ours, side, batch).to("cuda")
                given = given.to(torch.bfloat16) if given.is_floating_point() else given
                method = f"encode_{side}"
                torch.compiler.reset()
                for one in (theirs, ours):
                    setattr(one, f"compiled_{method}", torch.compile(getattr(one, method)))
                compare(name, side, "bfloat16", theirs, ours, f"compiled_{method}", given, rounds)
        del theirs, ours
        clear()


def training(names: list[str], batch: int, rounds: int) -> None:
    """Compare a step of SGD under bfloat16 autocast: towers, contrastive loss and gradients."""
    row("training step", "batch", "open_clip, ms", "zoo, ms", "times as fast", "open_clip, MiB", "zoo, MiB")
    for name in names:
        theirs, ours = pair(name, torch.float32)
        image, text = (given_to(ours, side, batch).to("cuda") for side in ("image", "text"))
        calls = {
            "peer": partial(train, theirs, PeerClipLoss(), image, text),
            "zoo": partial(train, ours, zoo.loss("contrastive"), image, text),
        }
        losses = [float(call()) for call in calls.values()]
        assert abs(losses[0] - losses[1]) < 0.02 * abs(losses[0]), losses
        found = medians(calls, rounds)
        memory = {kind: peak_mib(call) for kind, call in calls.items()}
        row(name, batch, found["peer"], found["zoo"], found["peer"] / found["zoo"], memory["peer"], memory["zoo"])
        del theirs, ours, calls
        clear()


def train(model: Any, loss: Callable[..., Any], image: Tensor, text: Tensor) -> Tensor:
    """Take a step of plain SGD under bfloat16 autocast and return the loss before it."""
    model.train()
    model.output_dict = True
    with torch.autocast("cuda", torch.bfloat16):
        output = model(image, text)
        value = loss(output["image_features"], output["text_features"], output["logit_scale"])
    value.backward()
    parameters = [one for one in model.parameters() if one.grad is not None]
    with torch.no_grad():
        torch._foreach_add_(parameters, [one.grad for one in parameters], alpha=-1e-6)
    model.zero_grad(set_to_none=True)
    return value.detach()


def losses(rounds: int) -> None:
    """Compare value and gradients of the losses."""
    row("loss", "batch", "open_clip, ms", "zoo, ms", "times as fast", "open_clip, MiB", "zoo, MiB")
    for name, peer in (("contrastive", PeerClipLoss), ("sigmoid", PeerSigLipLoss)):
        for batch in (1024, 8192, 32768):
            given = [one.detach().cuda().requires_grad_() for one in inputs_of(batch)]
            calls = {kind: partial(step, loss, given) for kind, loss in (("peer", peer()), ("zoo", zoo.loss(name)))}
            results = [call() for call in calls.values()]
            torch.testing.assert_close(results[1], results[0], rtol=1e-3, atol=1e-4)
            del results
            found = medians(calls, rounds)
            memory = {kind: peak_mib(call) for kind, call in calls.items()}
            row(name, batch, found["peer"], found["zoo"], found["peer"] / found["zoo"], memory["peer"], memory["zoo"])
            clear()


def loading(name: str, rounds: int) -> None:
    """Compare the seconds from a file to a model on the device, in this process."""
    theirs = peer_of(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_file({key: value.contiguous() for key, value in theirs.state_dict().items()}, path)
        alias = (peer_names() | peer_names(over_timm=True))[name]
        calls: Calls = {
            "peer": lambda: open_clip.create_model(alias, pretrained=str(path), device="cuda"),
            "zoo": lambda: zoo.build(name, pretrained=path, device="cuda"),
        }
        row("loading", "open_clip, s", "zoo, s", "times as fast", "open_clip, MiB on the device", "zoo")
        samples: dict[str, list[float]] = {kind: [] for kind in calls}
        memory: dict[str, float] = {}
        for _ in range(rounds):
            for kind, call in calls.items():
                start = time.perf_counter()
                memory[kind] = peak_mib(call)
                samples[kind].append(time.perf_counter() - start)
                clear()
        found = {kind: statistics.median(values) for kind, values in samples.items()}
        row(name, found["peer"], found["zoo"], found["peer"] / found["zoo"], memory["peer"], memory["zoo"])


def pixels(rounds: int) -> None:
    """Compare raw pixels on the device, made ready, with torchvision's transforms on the same batch."""
    row("raw pixels", "batch", "torchvision v2, ms", "zoo, ms", "times as fast", "torchvision, MiB", "zoo, MiB")
    ours = zoo.preprocess("vit-b32")
    theirs = v2.Compose(
        [
            v2.Resize(224, interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.CenterCrop(224),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD),
        ]
    )
    for height, width in ((512, 512), (1080, 1920)):
        given = torch.randint(256, (64, 3, height, width), dtype=torch.uint8, device="cuda")
        calls = {"peer": partial(theirs, given), "zoo": partial(ours.batch, given)}
        found = medians(calls, rounds)
        memory = {kind: peak_mib(call) for kind, call in calls.items()}
        ratio = found["peer"] / found["zoo"]
        row(f"{width} x {height}", 64, found["peer"], found["zoo"], ratio, memory["peer"], memory["zoo"])
        clear()


def clear() -> None:
    """Give back what nothing holds."""
    gc.collect()
    torch.cuda.empty_cache()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=sorted(SIDES), default=MODELS)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.exit(1, "bench_gpu.py needs a CUDA device; torch finds none here\n")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    parts: Calls = {
        "towers": partial(towers, options.models, options.batch, options.rounds),
        "compiled": partial(compiled, options.models, options.batch, options.rounds),
        "training": partial(training, options.models, options.batch, options.rounds),
        "losses": partial(losses, options.rounds),
        "loading": partial(loading, options.models[-1], 3),
        "pixels": partial(pixels, options.rounds),
    }
    for part in options.parts:
        start = time.perf_counter()
        parts[part]()
        print(f"({part}: {time.perf_counter() - start:.0f} s)\n", flush=True)


if __name__ == "__main__":
    main()
