"""Captions that are encoded word by word have the ids that the whole has, and where they might not, they are not."""

from __future__ import annotations

import functools
import inspect
import json
import random
import string
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken_ext import openai_public
from tokenizers import AddedToken
from transformers.convert_slow_tokenizer import bytes_to_unicode

from support.tokenizers.pipelines import (
    APART,
    ENGLISH,
    SPECIAL,
    UNPROVEN,
    WRONG,
    bytes_of,
    encoder,
    encoder_of,
    with_added,
)
from support.tokenizers.tiny_tokenizers import BYTES, MAKERS, ours
from support.tokenizers.tokenizer_corpus import families
from zoo_core.text import word_cache
from zoo_hf import captions
from zoo_hf.config import TiktokenConfig
from zoo_hf.pipeline import space_before_words
from zoo_hf.tiktoken_tokenizer import CL100K, CUT_AT_SPACES, R50K, TiktokenTokenizer
from zoo_hf.word_by_word import WordByWord, word_by_word

# -- which pipelines -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", APART)
def test_pipelines_of_the_field_read_words_apart(name: str) -> None:
    space, make = APART[name]
    assert space_before_words(make()) == space
    by_words = encoder(name)._by_words
    assert by_words is not None
    assert by_words(ENGLISH[0]) is not None and by_words("cat") is not None


@pytest.mark.parametrize("kind", MAKERS)
def test_saved_tokenizers_read_words_apart(kind: str, folders: dict[str, Path]) -> None:
    assert ours(folders[kind])._captions._by_words is not None


@pytest.mark.parametrize("name", WRONG)
def test_pipelines_in_which_words_depend_on_each_other_are_told(name: str) -> None:
    text, space, make = WRONG[name]
    made = make()
    assert space_before_words(made) is None

    def encode(text: str) -> list[int]:
        return made.encode(text, add_special_tokens=False).ids

    assert WordByWord(encode, space)(text) != encode(text)  # or the rule would be there for nothing


@pytest.mark.parametrize("name", UNPROVEN)
def test_pipelines_of_which_nothing_is_known_are_left_to_the_library(name: str) -> None:
    made = UNPROVEN[name]()
    assert space_before_words(made) is None
    assert encoder_of(made)._by_words is None


def test_a_reading_that_proves_wrong_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the library change what a part of a pipeline does, captions take longer and keep their ids."""
    monkeypatch.setattr(captions, "space_before_words", lambda _: "")
    encode = encoder_of(bytes_of(False))
    assert encode._by_words is None
    assert encode(ENGLISH) == encode._whole(ENGLISH)


# -- equal ids -------------------------------------------------------------------------------------

PIECES = [
    *("cat", "photo", "It's", "don't", "'s", "'ll", "o'clock", "the_quick", "A", "of", "dogs'", "123", "12,345.60"),
    *("!", "?!", "--", "(c)", "#1", "<", "<s", "a<s>b", *SPECIAL, "[CLS]", "x" * 101, "ab" * 60, "~`^", "&amp;"),
]
ODD_PIECES = ["", "é", "猫", "\n", "\t", "a\u00a0b", "\u2581", "cat\u2581dog", "e\u0301", "\x00", "\u0301", "ﬁ"]
WORDS = st.sampled_from(PIECES) | st.text(string.printable[:95].replace(" ", ""), min_size=1, max_size=9)
PLAIN = st.lists(WORDS, min_size=1, max_size=9).map(" ".join)
SOUP = st.text(string.printable + "é▁ ", max_size=30)
MIXED = st.lists(WORDS | st.sampled_from(ODD_PIECES), max_size=9).map(" ".join)


@pytest.mark.parametrize("special_tokens_in_text", [False, True])
@pytest.mark.parametrize("name", APART)
@settings(deadline=None, max_examples=30)
@given(texts=st.lists(PLAIN | SOUP | MIXED, max_size=5))
def test_word_by_word_gives_the_ids_of_the_whole(name: str, special_tokens_in_text: bool, texts: list[str]) -> None:
    encode = encoder(name, special_tokens_in_text)
    assert encode(texts) == encode._whole(texts)


@pytest.mark.parametrize("name", APART)
def test_any_text_of_the_field_has_the_ids_of_the_whole(name: str) -> None:
    texts = [text for texts in families(seed=5, share=0.004).values() for text in texts]
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    encode = encoder(name)
    assert encode(texts) == encode._whole(texts)
    assert encode._by_words is not None
    assert sum(encode._by_words(text) is not None for text in texts) > len(texts) / 4


@pytest.mark.parametrize("name", ["roberta", "gemma"])
def test_a_megabyte_has_the_ids_of_the_whole(name: str) -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefgst'.1", k=rng.randint(1, 12))) for _ in range(2_000)]
    text = " ".join(rng.choices(words, k=140_000))
    assert len(text) > 1_000_000
    encode = encoder(name)
    assert encode([text]) == encode._whole([text])


def test_other_captions_of_a_batch_are_encoded_as_a_whole_in_their_places() -> None:
    encode = encoder("roberta")
    texts = ["a cat", "a  cat", "", "un été", "the dog", "a <s> cat", "\ncat", "cat"]
    assert encode._by_words is not None
    assert [encode._by_words(text) is None for text in texts] == [False, True, True, True, False, False, True, False]
    assert encode(texts) == [encode._whole([text])[0] for text in texts]
    assert encode([]) == []


ADDED = {
    "a word": AddedToken("cat"),
    "a word alone": AddedToken("cat", single_word=True),
    "with the space before it": AddedToken("cat", lstrip=True),
    "with the space behind it": AddedToken("cat", rstrip=True),
    "normalized": AddedToken("CAT", normalized=True),
    "special": AddedToken("cat", special=True),
    "punctuation": AddedToken("'", normalized=False),
}


@pytest.mark.parametrize("special_tokens_in_text", [False, True])
@pytest.mark.parametrize("name", ["bert, uncased", "roberta", "t5, xlm-roberta", "siglip 2", "llama"])
@pytest.mark.parametrize("added", ADDED)
def test_captions_with_an_added_token_have_the_ids_of_the_whole(
    added: str, name: str, special_tokens_in_text: bool
) -> None:
    encode = encoder_of(with_added(APART[name][1](), ADDED[added]), special_tokens_in_text)
    assert encode._by_words is not None
    texts = [
        "a cat, asleep",
        "cat",
        "the cat's dog",
        "concatenate a dog",
        "a dog cat",
        "the cat cat",
        "CAT Cat",
        "a dog",
    ]
    assert encode(texts) == encode._whole(texts)


# -- the cache -------------------------------------------------------------------------------------


def spelled(text: str) -> list[int]:
    return list(text.encode())


def test_words_are_encoded_once_and_long_ones_are_not_remembered() -> None:
    asked: list[str] = []

    def encode(text: str) -> list[int]:
        asked.append(text)
        return spelled(text)

    by_words = WordByWord(encode, " ")
    for _ in range(3):
        assert by_words("cat cat dog") == spelled("cat cat dog")
    assert asked == ["cat", " cat", " dog"]
    long = "x" * (word_cache.LONG_WORD + 1)
    assert by_words(f"cat {long} {long}") == spelled(f"cat {long} {long}")
    assert asked[3:] == [f" {long}"] * 2
    assert max(map(len, by_words._others)) <= word_cache.LONG_WORD


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_cache, "CACHED_WORDS", 50)
    by_words = WordByWord(spelled, " ")
    for number in range(200):
        text = f"a{number} b{number} c{number % 7}"
        assert by_words(text) == spelled(text)
        assert max(len(by_words._first), len(by_words._others)) <= 50


def test_ids_that_are_refused_and_their_captions_are_not_remembered() -> None:
    by_words = WordByWord(spelled, "", frozenset({ord("<")}))
    assert by_words("a <s> b") is None
    assert by_words("a b") == spelled("ab")
    assert set(by_words._others) == {"a", "b"}


def test_threads_that_share_a_small_cache_get_the_ids_of_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_cache, "CACHED_WORDS", 16)
    encode = encoder_of(APART["roberta"][1]())
    texts = families(share=0.01)["captions"]
    expected = encode._whole(texts)
    with ThreadPoolExecutor(8) as pool:
        assert all(found == expected for found in pool.map(encode, [texts] * 16))


# -- tiktoken --------------------------------------------------------------------------------------


@functools.cache
def encoding(pattern: str) -> tiktoken.Encoding:
    """Return one with the merges of a trained byte-pair encoding."""
    letters = {letter: bytes([byte]) for byte, letter in bytes_to_unicode().items()}
    merges = json.loads(bytes_of(False).model.__getstate__())["merges"]
    tokens = dict.fromkeys(b"".join(letters[letter] for letter in left + right) for left, right in merges)
    ranks = BYTES | {token: 256 + rank for rank, token in enumerate(tokens)}
    return tiktoken.Encoding("tiny", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


@functools.cache
def of_tiktoken(pattern: str) -> WordByWord:
    by_words = word_by_word(encoding(pattern).encode_ordinary, " ")
    assert by_words is not None and by_words(ENGLISH[0]) is not None
    return by_words


@pytest.mark.parametrize("pattern", [R50K, CL100K], ids=["r50k", "cl100k"])
@settings(deadline=None, max_examples=200)
@given(text=PLAIN | SOUP | MIXED)
def test_tiktoken_word_by_word_gives_the_ids_of_the_whole(pattern: str, text: str) -> None:
    found = of_tiktoken(pattern)(text)
    assert found in (None, encoding(pattern).encode_ordinary(text))


def test_the_patterns_are_those_of_tiktoken() -> None:
    assert all(pattern in inspect.getsource(openai_public) for pattern in CUT_AT_SPACES)


@pytest.mark.parametrize(("pattern", "apart"), [(R50K, True), (r".+", False)], ids=["r50k", "other"])
def test_tiktoken_reads_words_apart_where_its_pattern_is_known(
    pattern: str, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo_hf.tiktoken_tokenizer._load_encoding", lambda _: encoding(pattern))
    size = encoding(pattern).n_vocab + 3
    made = TiktokenTokenizer(TiktokenConfig(vocab_size=size), context_length=9)
    assert (made._by_words is not None) == apart
    assert [made.encode(text) for text in ENGLISH] == [encoding(pattern).encode_ordinary(text) for text in ENGLISH]
