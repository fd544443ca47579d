"""What is remembered of the words of captions: each once, within bounds, and none that is refused."""

from __future__ import annotations

import pytest

from zoo_core.text import word_cache
from zoo_core.text.word_by_word import WordByWord


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
