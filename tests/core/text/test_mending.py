"""Mending of captions beside ftfy and the standard library, and how often it looks at a text."""

# ruff: noqa: RUF001
from __future__ import annotations

import html
import random
import time
import unicodedata
from collections.abc import Callable

import ftfy
import pytest

from support.tokenizers.tokenizer_corpus import families
from zoo_core.text import mending
from zoo_core.text.cleaning import clean_and_collapse, cleaned_words
from zoo_core.text.mending import ROUNDS, mended_lines

PIECES = (
    *(
        "&amp;",
        "&",
        "amp;",
        "&#38;",
        "#38;",
        "&lt;",
        "lt;",
        "&#x26;",
        ";",
        "&am",
        "p;",
        "&Atilde;",
        "&copy;",
        "&notit;",
    ),
    *("&ldquo;", "&amp;Atilde;", "&EACUTE;", "&#195;&#169;", "&#0;", "&#128;", "&#10;", "&#xe9;", "<", "\n", "\r\n"),
    *("Ã", "©", "â", "€", "“", "Ã ", "å", "ï¿½", "\x85", "\x91", "\ud83d", "\udc36", "\x1b[31m", "\x00", "\u2028"),
    *("é", "e\u0301", "\u0301", "\u0315", "ａ", "＆", "；", "ﬁ", "한", "\u1100\u1161", "\ufffd", " ", "a", "b"),
)


def mended(text: str) -> str:
    return "".join(mended_lines(text))


def as_the_field(text: str) -> str:
    return html.unescape(html.unescape(ftfy.fix_text(text)))


def test_texts_of_the_field_are_mended_as_ftfy_does() -> None:
    for text in (text for texts in families(seed=4, share=0.03).values() for text in texts):
        assert mended(text) == as_the_field(text), ascii(text)


def test_pieces_that_change_each_other_are_mended_as_ftfy_does() -> None:
    rng = random.Random(0)
    for _ in range(3_000):
        text = "".join(rng.choices(PIECES, k=rng.randint(1, 14)))
        assert mended(text) == as_the_field(text), ascii(text)


@pytest.mark.parametrize("times", [1, 2, ROUNDS - 1, ROUNDS])
def test_text_is_unescaped_as_often_as_ftfy_does(times: int) -> None:
    text = "black &" + "amp;" * times + " white"
    assert mended(text) == as_the_field(text) == "black & white"


def test_text_that_was_escaped_eighteen_times_is_mended_and_more_in_part() -> None:
    """Sixteen times by ftfy's rounds, twice by the field."""
    for times, expected in ((18, "&"), (19, "&amp;"), (100, "&" + "amp;" * 82)):
        assert mended("&" + "amp;" * times) == expected


def test_a_text_is_looked_at_a_bounded_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def counted(step: Callable[[str], str]) -> Callable[[str], str]:
        return lambda text: seen.append(len(text)) or step(text)

    monkeypatch.setattr(mending, "_STEPS", tuple(map(counted, mending._STEPS)))
    for text in ("&" + "amp;" * 5_000, "&" + "am&#112;;" * 5_000, "&" + "&#xff41;mp;" * 5_000):
        seen.clear()
        mended(text)
        assert sum(seen) <= ROUNDS * len(mending._STEPS) * len(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("&#" + "9" * 5_000 + ";", "\ufffd"),
        ("&#" + "0" * 5_000 + "65;", "A"),
        ("<&#" + "0" * 5_000 + "65", "<A"),
        ("&#" + "0" * 5_000 + ";", "\ufffd"),
        ("&#1114112;", "\ufffd"),
        ("&#00000128054;", "\U0001f436"),
    ],
)
def test_a_number_of_any_length_is_a_character(text: str, expected: str) -> None:
    assert mended(text) == expected


@pytest.mark.parametrize("start", ["a", "é", "\u1100", "\u0f40", " "])
def test_long_runs_of_marks_are_normalised_as_short_ones(start: str) -> None:
    marks = "\u0315\u0300\u0344\u0f73\u20dd\u0345\u0327\u0903\u05b0\u3099\u0338"
    rng = random.Random(1)
    for length in (31, 32, 33, 300):
        text = start + "".join(rng.choices(marks, k=length)) + "é"
        assert mended(text) == ftfy.fix_text(text)
        assert mended(text) == unicodedata.normalize("NFC", mended(text))


def test_marks_out_of_order_take_no_quadratic_time() -> None:
    start = time.process_time()
    assert mended("e" + "\u0315\u0338" * 50_000) == "e" + "\u0338" * 50_000 + "\u0315" * 50_000
    assert time.process_time() - start < 3


def test_lines_are_mended_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    steps = (lambda text: seen.append(text) or text, *mending._STEPS)
    monkeypatch.setattr(mending, "_STEPS", steps)
    words = iter(cleaned_words("été à Paris\nl'été\n" * 1_000, "lower"))
    assert [next(words) for _ in range(4)] == ["été", "à", "paris", "l'été"]
    assert len(seen) == 2


@pytest.mark.parametrize("text", ["ΟΔΥΣΣΕΥΣ\nΟΔΟΣ", "a &amp\n;lt; b", "é &#\n38;", "é\r\n \n\n b\n"])
def test_words_are_those_of_the_whole_text(text: str) -> None:
    assert list(cleaned_words(text, "lower")) == as_the_field(text).lower().split()
    assert clean_and_collapse(text, "whitespace") == " ".join(as_the_field(text).split())
