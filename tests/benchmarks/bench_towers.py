"""Time of encode_image and encode_text beside open_clip's in float32, with the same weights, on one thread.

    python tests/benchmarks/bench_towers.py [--models vit-b32 rn50] [--batch 16] [--rounds 5] [--json]

Ours runs as built, with optimize="inference", in bfloat16, and in bfloat16 with optimize="inference". All take turns,
so that a busy machine slows all alike; medians of process CPU time are printed as rows for docs/benchmarks.md. A ratio
is the peer's time by ours: above 1, ours is faster. Features are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

import zoo
from support.peer import images, peer_model, peer_names, randomized, tiny_arguments
from zoo.inference.autotune import optimize_for_inference
from zoo.materialize.skeleton import skeleton
from zoo_core.nn.inference_forms import twin

Row = dict[str, Any]

SIDES = {
    "tiny": ["image", "text"],
    "vit-b32": ["image", "text", "short text"],
    "rn50": ["image"],
    "convnext-base": ["image"],
    "vit-l14": ["image"],
}
TINY_REPEATS = 50
"""Calls within one measurement of the tiny model, which alone would be too short for the clock."""
SHORT = 16
"""Most tokens of a short text: what a caption of ten words has."""
LONG_MODELS = {"vit-l14": 3}
"""Rounds of models whose rounds take long."""


def peer_of(name: str) -> Any:
    """Return the peer's model with weights drawn at random."""
    if name == "tiny":
        return randomized(open_clip.CLIP(**tiny_arguments())).eval()
    config = open_clip.get_model_config((peer_names() | peer_names(over_timm=True))[name])
    assert config is not None
    return randomized(peer_model(config)).eval()


def ours_of(name: str, weights: dict[str, Tensor]) -> Any:
    """Return our model on these weights, without a copy of them."""
    if name == "tiny":
        with torch.device("meta"):
            model: Any = zoo.CLIP(**tiny_arguments())
    else:
        model = skeleton(zoo.config(name))
        model.tokenizer = zoo.tokenizer(name)
    model.load_state_dict(weights, assign=True)
    return model.eval()


def optimized(model: Any) -> Any:
    """Return the model as `zoo.build(..., optimize="inference")` would give it, the rest of it shared."""
    other = twin(model)
    optimize_for_inference(other)
    return other


def given_to(model: Any, side: str, batch: int) -> Tensor:
    """Return pictures, or texts that end with the last token or with one of the first `SHORT`."""
    if side == "image":
        return images(model, batch)
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(3, model.vocab_size - 2, (batch, model.context_length), generator=generator)
    ends = torch.full((batch,), model.context_length - 1)
    if side == "short text":
        ends = torch.randint(SHORT // 3, SHORT, (batch,), generator=generator)
    text[:, 0] = model.vocab_size - 2
    text[torch.arange(batch), ends] = model.vocab_size - 1
    return text.masked_fill(torch.arange(model.context_length) > ends[:, None], 0)


def variants(name: str) -> dict[str, Any]:
    """Return the peer's model and ours in each way, by name."""
    theirs = peer_of(name)
    weights = theirs.state_dict()
    ours = ours_of(name, weights)
    coarse = ours_of(name, {key: value.to(torch.bfloat16) for key, value in weights.items()})
    return {
        "open_clip": theirs,
        "zoo": ours,
        "zoo, optimized": optimized(ours),
        "zoo, bfloat16": coarse,
        "zoo, bfloat16, optimized": optimized(coarse),
    }


def cpu_ms(call: Callable[[], Any], repeats: int) -> float:
    """Return CPU milliseconds of one call."""
    start = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - start) * 1e3 / repeats


def compare(name: str, side: str, models: dict[str, Any], batch: int, rounds: int) -> list[Row]:
    """Return a row for each of ours: time, ratio and how far features are, of interleaved rounds of one method."""
    given = given_to(models["zoo"], side, batch)
    method = f"encode_{side.split()[-1]}"
    repeats = TINY_REPEATS if name == "tiny" else 1
    calls = {kind: lambda model=model: getattr(model, method)(given) for kind, model in models.items()}
    features = {kind: call().float() for kind, call in calls.items()}
    samples: dict[str, list[float]] = {kind: [] for kind in calls}
    for number in range(rounds):
        for kind in calls if number % 2 else reversed(calls):
            samples[kind].append(cpu_ms(calls[kind], repeats))
    medians = {kind: statistics.median(values) for kind, values in samples.items()}
    expected = features["open_clip"]
    rows: list[Row] = []
    for kind in list(calls)[1:]:
        if "bfloat16" not in kind:
            torch.testing.assert_close(features[kind], expected, rtol=0, atol=1e-5)
        rows.append(
            {
                "model": name,
                "side": side,
                "batch": batch,
                "kind": kind,
                "theirs_ms": medians["open_clip"],
                "ours_ms": medians[kind],
                "ratio": medians["open_clip"] / medians[kind],
                "difference": float((features[kind] - expected).abs().max()),
                "cosine": float(F.cosine_similarity(features[kind], expected).min()),
            }
        )
    return rows


def measure(names: list[str], batch: int, rounds: int) -> list[Row]:
    """Return the rows of all models, one model in memory at a time; what was optimized goes to standard error."""
    rows: list[Row] = []
    for name in names:
        models = variants(name)
        for kind in ("zoo, optimized", "zoo, bfloat16, optimized"):
            for one in models[kind].optimizations:
                told = f"{one.modules} x {one.form}, {one.gain:.2f} times as fast"
                print(f"{name}, {kind}, {one.tower}: {told}", file=sys.stderr)
        with torch.inference_mode():
            for side in SIDES[name]:
                rows += compare(name, side, models, batch, min(rounds, LONG_MODELS.get(name, rounds)))
        del models
        gc.collect()
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--models", nargs="+", choices=sorted(SIDES), default=list(SIDES))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(options.models, options.batch, options.rounds)
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print("| model | input | batch | open_clip float32, ms | zoo | ms | times as fast | difference | least cosine |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['model']} | {row['side']} | {row['batch']} | {row['theirs_ms']:.4g} "
            f"| {row['kind'].removeprefix('zoo').lstrip(', ') or 'as built'} | {row['ours_ms']:.4g} "
            f"| {row['ratio']:.2f} | {row['difference']:.1e} | {row['cosine']:.6f} |"
        )


if __name__ == "__main__":
    main()
