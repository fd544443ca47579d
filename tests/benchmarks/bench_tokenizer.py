"""Captions a second of processor time of the tokenizers beside open_clip's, on one thread.

    python tests/benchmarks/bench_tokenizer.py [--json] [--rarer-words]

*Cold* is the first pass of a tokenizer that remembers no word, *warm* the second. Both are medians, and the
two tokenizers take turns, so that a busy machine slows both alike. Ids are compared before anything is timed.
Those of transformers are trained here on the words of CLIP's vocabulary, to the size of the published ones as far as
these words go, so that a caption has about as many ids. tiktoken has no peer in open_clip 3.3.0: beside ours is what
it takes tiktoken to encode each caption, and to write the ids into one tensor.
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

import tiktoken
import torch
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.tokenizers.tiny_tokenizers import BYTES, MAKERS
from support.tokenizers.tiny_tokenizers import ours as of_transformers
from support.tokenizers.tokenizer_corpus import FRAGMENTS, scene
from zoo_core.errors import TruncatedTextWarning
from zoo_text.bpe.config import ClipBpeConfig
from zoo_text.bpe.tokenizer import ClipBpeTokenizer, merges
from zoo_tiktoken.config import TiktokenConfig
from zoo_tiktoken.tokenizer import R50K, TiktokenTokenizer

Encode = Callable[[list[str]], torch.Tensor]

SIZES = {
    "wordpiece": 30_522,
    "byte-bpe": 50_265,
    "unigram": 32_000,
    "sentencepiece": 32_000,
    "nllb": 64_000,
    "gemma": 64_000,
}
"""Ids of each vocabulary."""

ROUNDS = 5


def captions(count: int) -> list[str]:
    """Return `count` distinct captions like those of COCO."""
    rng = random.Random(0)
    distinct: dict[str, None] = {}
    while len(distinct) < count:
        distinct[scene(rng)] = None
    return list(distinct)


def with_rarer_words(texts: list[str]) -> list[str]:
    """Return captions of as many distinct words as people use: one more in each, the rarer the less often."""
    rng, every = random.Random(0), words()
    return [f"{text[:-1]} near {every[int(len(every) ** rng.random()) - 1]}." for text in texts]


def multilingual(count: int) -> list[str]:
    """Return `count` texts that are not ASCII, so that ftfy has to read each."""
    rng = random.Random(0)
    return [" ".join(rng.choices(FRAGMENTS, k=8)) + " é" for _ in range(count)]


def words() -> list[str]:
    """Return the words of CLIP's vocabulary that are ASCII."""
    spelled = (spelling.removesuffix(b" ") for spelling in merges(49_408).spellings if spelling.endswith(b" "))
    return [word.decode() for word in spelled if word.isascii()]


def training() -> list[str]:
    """Return texts that hold each word of `words` once, and captions."""
    every = words()
    return [" ".join(every[start : start + 20]) for start in range(0, len(every), 20)] + captions(2_000)


def of_kind(kind: str, root: Path) -> tuple[Callable[[], Encode], Callable[[], Encode]]:
    """Return what makes ours and open_clip's over one tokenizer of transformers, loaded."""
    folder = MAKERS[kind](root / kind, training(), SIZES[kind])

    def loaded(encode: Encode) -> Encode:
        encode(["a cat"])
        return encode

    return (
        lambda: loaded(of_transformers(folder, 77)),
        lambda: loaded(HFTokenizer(str(folder), context_length=77)),
    )


def of_tiktoken() -> tuple[Callable[[], Encode], Callable[[], Encode]]:
    """Return what makes ours over an encoding with the words of CLIP, and what uses tiktoken as it is."""
    pieces = (f" {word}"[:end] for word in words() for end in range(2, len(word) + 2))
    ranks = BYTES | {piece.encode(): 256 + rank for rank, piece in enumerate(dict.fromkeys(pieces))}
    encoding = tiktoken.Encoding("words", pat_str=R50K, mergeable_ranks=ranks, special_tokens={})
    config = TiktokenConfig(vocab_size=encoding.n_vocab + 3)

    def new() -> Encode:
        tokenizer = TiktokenTokenizer(config, context_length=77)
        tokenizer.loaded = encoding
        return tokenizer

    def plain(texts: list[str]) -> torch.Tensor:
        end, padding, start = range(encoding.n_vocab, encoding.n_vocab + 3)
        rows = torch.full((len(texts), 77), padding)
        for row, text in zip(rows, texts, strict=True):
            ids = [start, *encoding.encode_ordinary(text)[:75], end]
            row[: len(ids)] = torch.tensor(ids)
        return rows

    return new, lambda: plain


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
    parser.add_argument("--rarer-words", action="store_true", help="captions of six times as many words")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", TruncatedTextWarning)
    texts = captions(arguments.captions)
    if arguments.rarer_words:
        texts = with_rarer_words(texts)
    results = {
        "captions": measure(texts),
        "multilingual": measure(multilingual(arguments.captions // 4)),
    }
    with tempfile.TemporaryDirectory() as root:
        for kind in MAKERS:
            results[kind] = measure(texts, *of_kind(kind, Path(root)))
    results["tiktoken"] = measure(texts, *of_tiktoken())
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
