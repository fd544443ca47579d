"""Captions that tiktoken encodes word by word have the ids that the whole has."""

from __future__ import annotations

import functools
import inspect
import json

import pytest
import tiktoken
from hypothesis import given, settings
from tiktoken_ext import openai_public
from transformers.convert_slow_tokenizer import bytes_to_unicode

from support.tokenizers.pipelines import ENGLISH, bytes_of
from support.tokenizers.plain_captions import MIXED, PLAIN, SOUP
from support.tokenizers.tiny_tokenizers import BYTES
from zoo_core.text.word_by_word import WordByWord, word_by_word
from zoo_tiktoken.config import TiktokenConfig
from zoo_tiktoken.tokenizer import CL100K, CUT_AT_SPACES, R50K, TiktokenTokenizer


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
    monkeypatch.setattr("zoo_tiktoken.tokenizer._load_encoding", lambda _: encoding(pattern))
    size = encoding(pattern).n_vocab + 3
    made = TiktokenTokenizer(TiktokenConfig(vocab_size=size), context_length=9)
    assert (made._by_words is not None) == apart
    assert [made.encode(text) for text in ENGLISH] == [encoding(pattern).encode_ordinary(text) for text in ENGLISH]
