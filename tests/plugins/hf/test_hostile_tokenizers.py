"""Tokenizers that are broken, or made to break whoever loads them: ids or an error of ours, in bounded time."""

# ruff: noqa: RUF001
from __future__ import annotations

import base64
import json
import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from support.tokenizers.tiny_tokenizers import LENGTH, changed, ours
from zoo_core.boundary.library_code import library_code
from zoo_core.errors import ConfigError, InputError, ZooError
from zoo_hf import bounds
from zoo_hf.bounds import PUBLISHED
from zoo_hf.config import HfTokenizerConfig
from zoo_hf.tokenizer import HfTokenizer

pytestmark = pytest.mark.filterwarnings("ignore::zoo_core.errors.TruncatedTextWarning")

Json = dict[str, Any]


def edited(source: Path, folder: Path, edit: Callable[[Json], object]) -> HfTokenizer:
    """Return the tokenizer of a folder whose `tokenizer.json` is changed in place."""
    size = ours(source).vocab_size
    folder.mkdir(exist_ok=True)
    changed(source, folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    edit(content)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return HfTokenizer(HfTokenizerConfig(name=str(folder), vocab_size=size), context_length=LENGTH)


def replace(pattern: Json, content: str) -> Json:
    return {"type": "Replace", "pattern": pattern, "content": content}


def split(pattern: str) -> Json:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def precompiled(table: bytes) -> Json:
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()}


def without_unknown(one: Json) -> None:
    vocab = dict.fromkeys(one["model"]["vocab"])
    one["model"] = {"type": "WordLevel", "vocab": {word: at for at, word in enumerate(vocab)}, "unk_token": "nothing"}


GROWING = {"type": "Sequence", "normalizers": [replace({"Regex": "."}, "x" * 100)] * 3}
REFUSED: dict[str, tuple[str, Callable[[Json], object], str]] = {
    "growing text": ("wordpiece", lambda one: one.update(normalizer=GROWING), "makes up to 1,030,301 characters of one; at most 1,024"),
    "growing between characters": (
        "wordpiece",
        lambda one: one.update(normalizer={"type": "Sequence", "normalizers": [replace({"Regex": ""}, "x")] * 30}),
        "makes up to 1,073,741,824 characters of one",
    ),
    "growing by a table": (
        "wordpiece",
        lambda one: one.update(normalizer=precompiled(b"\x04\0\0\0\0\0\0\0" + b"x" * 2_000)),
        "makes up to 2,000 characters of one",
    ),
    "growing while decoding": (
        "byte-bpe",
        lambda one: one.update(decoder={"type": "Sequence", "decoders": [replace({"String": "a"}, "aa" * 20)] * 3}),
        "makes up to 64,000 characters of one",
    ),
    "a table that points outside itself": (
        "unigram",
        lambda one: one.update(normalizer=precompiled(b"\x04\0\0\0\xff\xff\xff\xff")),
        "cannot be read as a tokenizer: PanicException: index out of bounds",
    ),
    "words of any length": (
        "wordpiece",
        lambda one: one["model"].update(max_input_chars_per_word=10**9),
        "has max_input_chars_per_word 1,000,000,000; at most 256",
    ),
    "exponential time": ("wordpiece", lambda one: one.update(pre_tokenizer=split("(a+)+$")), "PanicException: Onig: Regex search error"),
    "quadratic time": ("wordpiece", lambda one: one.update(pre_tokenizer=split("a+$")), "a regular expression whose time grows faster than its text"),
    "quadratic time of a normalizer": (
        "byte-bpe",
        lambda one: one.update(normalizer=replace({"Regex": "(?:dog)+[x-z]$"}, "x")),
        "a regular expression whose time grows faster than its text, such as 'dogdogdogdog'",
    ),
    "merges of nothing": ("byte-bpe", lambda one: one["model"]["merges"].append(["no", "such"]), "cannot be read as a tokenizer: "),
    "no vocabulary": ("wordpiece", lambda one: one.update(model={"type": "WordLevel", "vocab": {}, "unk_token": "x"}, added_tokens=[]), "tokenizer"),
    "no unknown token": ("wordpiece", without_unknown, "Exception: WordLevel error: Missing [UNK] token from the vocabulary"),
    "no regular expression": ("wordpiece", lambda one: one.update(pre_tokenizer=split("(")), "cannot be read as a tokenizer: "),
}  # fmt: skip
"""Kind of tokenizer, what is changed in its `tokenizer.json`, and a part of the message."""


@pytest.mark.parametrize("pattern", sorted(PUBLISHED))
def test_published_patterns_need_no_timing_as_their_time_grows_with_the_text(
    pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = Tokenizer(models.WordLevel({"x": 0}, "x"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    with monkeypatch.context() as timed:
        timed.setattr(bounds, "PUBLISHED", frozenset[str]())
        assert bounds.excess(tokenizer) is None
    monkeypatch.setattr(bounds.time, "thread_time", lambda: pytest.fail("it was timed"))
    assert bounds.excess(tokenizer) is None


def test_clips_of_transformers_have_published_patterns_alone() -> None:
    backend = Tokenizer.from_str(transformers.CLIPTokenizer({"<|endoftext|>": 0}, []).backend_tokenizer.to_str())
    patterns = re.findall(r'"Regex":("(?:[^"\\]|\\.)*")', backend.to_str())
    assert patterns
    assert PUBLISHED.issuperset(map(json.loads, patterns))


@pytest.mark.parametrize("case", REFUSED)
def test_a_hostile_tokenizer_is_refused_when_it_is_loaded(case: str, folders: dict[str, Path], tmp_path: Path) -> None:
    kind, edit, message = REFUSED[case]
    tokenizer = edited(folders[kind], tmp_path, edit)
    with pytest.raises(ConfigError) as caught:
        tokenizer("a photo of a cat")
    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_json_deeper_than_a_parser_reads_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        folder = tmp_path / name
        folder.mkdir()
        changed(folders["wordpiece"], folder)
        (folder / name).write_text("[" * 100_000)
        config = HfTokenizerConfig(name=str(folder), vocab_size=9)
        with pytest.raises(ConfigError, match="cannot be read as a tokenizer"):
            HfTokenizer(config, context_length=LENGTH)("a")


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tokenizer_config.json")
    (tmp_path / "vocab.txt").write_text("a")
    config = HfTokenizerConfig(name=str(tmp_path), vocab_size=9)
    with pytest.raises(ConfigError, match=r"tokenizer_config\.json is no regular file"):
        HfTokenizer(config, context_length=LENGTH)("a")


FAILING: dict[str, tuple[str, Callable[[Json], object], str, str]] = {
    "exponential time": (
        "wordpiece",
        lambda one: one.update(normalizer=None, pre_tokenizer=split(r"(\p{Greek}+)+$")),
        "α" * 60 + "!",
        "cannot encode 'α.*: PanicException: Onig: Regex search error: retry-limit-in-match over",
    ),
    "too long with its growth": (
        "wordpiece",
        lambda one: one.update(normalizer=replace({"String": "q"}, "x" * 1_000)),
        "q" * 100_000,
        r"takes 67,108 characters at most, found 100,000",
    ),
}


@pytest.mark.parametrize("case", FAILING)
def test_a_caption_on_which_a_tokenizer_fails_is_named(case: str, folders: dict[str, Path], tmp_path: Path) -> None:
    kind, edit, text, message = FAILING[case]
    tokenizer = edited(folders[kind], tmp_path, edit)
    assert tokenizer(["a", "cat"]).shape == (2, LENGTH)
    with pytest.raises(InputError, match=message) as caught:
        tokenizer(["a", text, "cat"])
    assert len(str(caught.value)) < 700
    assert tokenizer(["a", "cat"]).shape == (2, LENGTH)


class PanicError(BaseException):
    __module__ = "pyo3_runtime"


@pytest.mark.parametrize("error", [KeyError("x"), PanicError("lost"), RecursionError("deep"), StopIteration()])
def test_what_a_library_raises_becomes_an_error_of_ours(error: BaseException) -> None:
    with pytest.raises(InputError, match=f"^refused: {type(error).__name__}"), library_code(lambda told: InputError(f"refused: {told}")):  # fmt: skip
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), MemoryError(), ConfigError("ours")])
def test_what_is_no_fault_of_a_library_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, library_code(InputError):
        raise error
    assert caught.value is error


# -- mutations ---------------------------------------------------------------------------------------------------------

JUNK: list[Any] = [
    *(None, True, -1, 0, 1, 2**31, 2**63, 1e308, "", "a", " ", "▁", "[UNK]", "\x00", "\ud800", "x" * 300, [], {}, [[]]),
    *([None], {"type": "x"}, {"String": ""}, {"Regex": ""}, {"Regex": "(a|a)*b"}, {"Regex": "."}, ["a", "a"], [["a", 0.0]]),
    *({"type": "NFKC"}, {"type": "Lowercase"}, {"type": "ByteLevel"}, {"type": "Metaspace"}, {"type": "BertPreTokenizer"}),
    *(replace({"Regex": "."}, "xy"), split("(a+)+$"), split(""), {"type": "Prepend", "prepend": "x" * 2_000}),
]  # fmt: skip
TEXTS = [
    "a photo of a cat",
    "",
    "A cat, l'été 猫 🐱!",
    "a" * 300,
    "[SEP] </s> <pad>",
    "x" * 20 + " 12,345.60",
    "\x00\ud800",
]


def places(node: Any) -> list[tuple[Any, Any]]:
    """Return every container with each of its keys; of long ones the first and the last alone."""
    keys: list[Any] = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
    keys = keys if len(keys) < 12 else [*keys[:4], *keys[-4:]]
    return [(node, key) for key in keys] + [place for key in keys for place in places(node[key])]


def mutate(document: Json, rng: random.Random) -> None:
    """Change a document in one to three places: drop, replace, double or exchange a value."""
    for _ in range(rng.choice((1, 1, 2))):
        found = places(document)
        container, key = rng.choice(found)
        match rng.randrange(5):
            case 0:
                del container[key]
            case 1 | 2:
                container[key] = rng.choice(JUNK)
            case 3 if isinstance(container, list):
                container += [container[key]] * rng.randint(1, 3)
            case _:
                other, its = rng.choice(found)
                if its in other if isinstance(other, dict) else its < len(other):
                    container[key] = json.loads(json.dumps(other[its]))


def attempt(source: Path, folder: Path, seed: str) -> str:
    """Load a tokenizer with a mutated document, encode and decode: return what came of it."""
    rng = random.Random(seed)
    start = time.process_time()
    tokenizer = edited(source, folder, lambda one: mutate(one, rng))
    try:
        rows = tokenizer(TEXTS)
        tokenizer.decode(rows[0])
        assert rows.shape == (len(TEXTS), LENGTH)
        assert 0 <= int(rows.min()) <= int(rows.max()) < tokenizer.vocab_size
        return "ids"
    except ZooError as error:
        assert "\n" not in str(error)
        return type(error).__name__
    finally:
        assert time.process_time() - start < 10


KINDS = ("wordpiece", "byte-bpe", "unigram", "nllb", "gemma")


@pytest.mark.parametrize("kind", KINDS)
def test_a_mutated_tokenizer_gives_ids_or_an_error_of_ours(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    outcomes = {attempt(folders[kind], tmp_path, f"{kind} {number}") for number in range(25)}
    assert {"ids"} < outcomes <= {"ids", "ConfigError", "InputError"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_mutated_tokenizers_give_ids_or_an_error_of_ours(
    kind: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    for number in range(1_000):
        attempt(folders[kind], tmp_path, f"{kind} {number}")
