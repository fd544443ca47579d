"""Captions a second of processor time of the tokenizers beside open_clip's, on one thread.

    python tests/benchmarks/bench_tokenizer.py [--json]

*Cold* is the first pass of a tokenizer that remembers no word, *warm* the second. Both are medians, and the
two tokenizers take turns, so that a busy machine slows both alike. Ids are compared before anything is timed.
Those of transformers have tiny vocabularies, made here as the tests make them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))

from test_hf_tokenizer import MAKERS, as_the_peer
from tokenizer_corpus import FRAGMENTS, scene
from zoo_core.errors import TruncatedTextWarning
from zoo_text.tokenizer import ClipBpeTokenizer
from zoo_text.tokenizer_config import ClipBpeConfig

Encode = Callable[[list[str]], torch.Tensor]

ROUNDS = 5


def captions(count: int) -> list[str]:
    """Return `count` distinct captions like those of COCO."""
    rng = random.Random(0)
    distinct: dict[str, None] = {}
    while len(distinct) < count:
        distinct[scene(rng)] = None
    return list(distinct)


def multilingual(count: int) -> list[str]:
    """Return `count` texts that are not ASCII, so that ftfy has to read each."""
    rng = random.Random(0)
    return [" ".join(rng.choices(FRAGMENTS, k=8)) + " é" for _ in range(count)]


def of_transformers(folder: Path) -> tuple[Encode, Encode]:
    """Return ours and open_clip's over one tokenizer of transformers, loaded."""
    both = as_the_peer(folder, context_length=77), HFTokenizer(str(folder), context_length=77)
    for one in both:
        one("a cat")
    return both


def ours() -> Encode:
    """Return a new tokenizer of ours that remembers no word."""
    tokenizer = ClipBpeTokenizer(ClipBpeConfig(), context_length=77)
    tokenizer._chunks.clear()
    return tokenizer


def peers() -> Encode:
    """Return a new tokenizer of open_clip."""
    return SimpleTokenizer()


def seconds(encode: Encode, texts: list[str]) -> float:
    """Return the processor time of one pass; unlike wall time, it leaves out waiting for other programs."""
    start = time.process_time()
    encode(texts)
    return time.process_time() - start


def measure(
    texts: list[str], ours: Callable[[], Encode] = ours, peers: Callable[[], Encode] = peers
) -> dict[str, dict[str, float]]:
    """Return texts a second of both, cold and warm, and their ratio."""
    if not torch.equal(ours()(texts), peers()(texts)):
        raise SystemExit("the two tokenizers disagree: nothing to compare")
    times: dict[str, dict[str, list[float]]] = {state: {"zoo": [], "open_clip": []} for state in ("cold", "warm")}
    for _ in range(ROUNDS):
        for name, make in (("zoo", ours), ("open_clip", peers)):
            encode = make()
            for state in ("cold", "warm"):
                times[state][name].append(seconds(encode, texts))
    rates = {
        state: {name: len(texts) / statistics.median(taken) for name, taken in both.items()}
        for state, both in times.items()
    }
    return {state: {**both, "ratio": both["zoo"] / both["open_clip"]} for state, both in rates.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--captions", type=int, default=20_000, help="number of distinct captions")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", TruncatedTextWarning)
    results = {
        "captions": measure(captions(arguments.captions)),
        "multilingual": measure(multilingual(arguments.captions // 4)),
    }
    with tempfile.TemporaryDirectory() as root:
        for kind, make in MAKERS.items():
            mine, theirs = of_transformers(make(Path(root) / kind))
            found = measure(captions(arguments.captions), lambda mine=mine: mine, lambda theirs=theirs: theirs)
            results[kind] = {"warm": found["warm"]}
    if arguments.json:
        print(json.dumps(results))
        return
    print(f"{'':22}{'zoo':>12}{'open_clip':>12}{'ratio':>8}")
    for corpus, states in results.items():
        for state, one in states.items():
            rates = f"{one['zoo']:>12,.0f}{one['open_clip']:>12,.0f}{one['ratio']:>8.1f}"
            print(f"{corpus + ', ' + state:22}{rates}")


if __name__ == "__main__":
    main()
