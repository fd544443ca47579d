"""Captions that are encoded word by word have the ids that the whole has, and where they might not, they are not."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from support.tokenizers.pipelines import (
    APART,
    ENGLISH,
    UNPROVEN,
    WRONG,
    bytes_of,
    encoder,
    encoder_of,
    with_added,
)
from support.tokenizers.plain_captions import MIXED, PLAIN, SOUP
from support.tokenizers.tiny_tokenizers import MAKERS, ours
from support.tokenizers.tokenizer_corpus import families
from zoo_core.text import word_cache
from zoo_core.text.word_by_word import WordByWord
from zoo_hf import captions
from zoo_hf.pipeline import space_before_words

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


# -- threads ---------------------------------------------------------------------------------------


def test_threads_that_share_a_small_cache_get_the_ids_of_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_cache, "CACHED_WORDS", 16)
    encode = encoder_of(APART["roberta"][1]())
    texts = families(share=0.01)["captions"]
    expected = encode._whole(texts)
    with ThreadPoolExecutor(8) as pool:
        assert all(found == expected for found in pool.map(encode, [texts] * 16))
