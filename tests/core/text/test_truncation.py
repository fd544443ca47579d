"""Captions that are longer than a model takes: cut and told, cut in silence, or refused."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import zoo
from zoo_core.errors import InputError, TruncatedTextWarning, ZooWarning
from zoo_core.text.tokenizer import Tokenizer
from zoo_core.text.truncation import report_once

LONG = " ".join(["word"] * 90)
TEXTS = ["a cat", LONG, "a dog", f"{LONG} more"]


class Letters(Tokenizer):
    """A tokenizer that only says what it has to."""

    context_length = 6
    vocab_size = 130
    sot_id, eot_id, pad_id = 128, 129, 0

    def encode(self, text: str) -> list[int]:
        return list(text.encode("ascii"))

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(one for one in ids if 0 < one < 128).decode()


@pytest.fixture(params=["clip-bpe", "derived"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return zoo.tokenizer("vit-b32") if request.param == "clip-bpe" else Letters()


def fits(tokenizer: Any) -> str:
    """Return the longest caption of its kind that fits."""
    room = tokenizer.context_length - 2
    return " ".join(["word"] * room) if room > 10 else "a" * room


def test_cut_captions_are_counted_and_the_first_is_named(tokenizer: Any) -> None:
    with pytest.warns(ZooWarning) as told:
        tokenizer([fits(tokenizer), LONG, "a", f"{LONG} more"])
    (warning,) = told  # once for all of them
    assert warning.category is TruncatedTextWarning
    length = tokenizer.context_length
    assert str(warning.message).startswith(
        f"2 of 4 captions have more than {length} tokens and were cut; texts[1] is the first of them: 'word word"
    )
    assert warning.filename == __file__


def test_captions_that_fit_exactly_are_not_cut(tokenizer: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        row = tokenizer(fits(tokenizer))[0]
    assert row[-1] == tokenizer.eot_id
    with pytest.warns(TruncatedTextWarning, match="1 of 1 captions"):
        longer = tokenizer(fits(tokenizer) + ("a" if isinstance(tokenizer, Letters) else " word"))
    assert torch.equal(longer[0], row)


def test_truncate_cuts_in_silence_to_the_same_ids(tokenizer: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        silent = tokenizer(TEXTS, overflow="truncate")
    with pytest.warns(TruncatedTextWarning):
        assert torch.equal(tokenizer(TEXTS), silent)


def test_error_refuses_and_says_what_to_do(tokenizer: Any) -> None:
    with pytest.raises(InputError, match=r"captions have more than \d+ tokens; texts\[\d\].*overflow='truncate'"):
        tokenizer(TEXTS, overflow="error")
    assert len(tokenizer(["a"], overflow="error")) == 1


def test_an_unknown_policy_is_refused(tokenizer: Any) -> None:
    with pytest.raises(InputError, match="overflow must be 'warn', 'truncate', 'error', found 'cut'"):
        tokenizer(TEXTS, overflow="cut")


def test_a_model_follows_the_policy() -> None:
    model = zoo.build("digits-tiny", pretrained="demo")
    with torch.inference_mode():
        with pytest.warns(TruncatedTextWarning, match="2 of 4 captions"):
            told = model.encode_text(TEXTS)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert torch.equal(model.encode_text(TEXTS, overflow="truncate"), told)
        with pytest.raises(InputError, match="2 of 4 captions have more than"):
            model.encode_text(TEXTS, overflow="error")


def test_the_warning_survives_a_pickle() -> None:
    import pickle

    assert str(pickle.loads(pickle.dumps(TruncatedTextWarning("2 of 4")))) == "2 of 4"


def test_equal_captions_count_each_time_though_they_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo_core.models.encode_text.PORTION", 2)
    model = zoo.build("digits-tiny", pretrained="demo")
    texts = ["a", "b", LONG, LONG, "c", f"{LONG} more", "a"]
    with torch.inference_mode():
        with pytest.warns(TruncatedTextWarning) as told:
            found = model.encode_text(texts)
        (warning,) = told
        assert str(warning.message).startswith("3 of 7 captions have more than 20 tokens and were cut; texts[2] is the")
        assert warning.filename == __file__
        torch.testing.assert_close(found, model.text(model.tokenizer(texts, overflow="truncate")))
        monkeypatch.setattr(model.text, "forward", None)  # nothing is encoded where captions are refused
        with pytest.raises(InputError, match=r"3 of 7 captions have more than 20 tokens; texts\[2\]"):
            model.encode_text(texts, overflow="error")


def test_several_calls_are_told_at_once_and_each_thread_tells_its_own() -> None:
    tokenizer = zoo.tokenizer("digits-tiny")
    with pytest.warns(TruncatedTextWarning) as told, report_once():
        with report_once():
            tokenizer(TEXTS)
        tokenizer("a cat")
        with ThreadPoolExecutor(1) as pool:  # another thread, which has not asked for it
            pool.submit(tokenizer, LONG).result()
    assert [str(one.message).partition(" captions")[0] for one in told] == ["1 of 1", "2 of 5"]
    with pytest.raises(KeyError), warnings.catch_warnings(), report_once():
        warnings.simplefilter("error")
        tokenizer(TEXTS)
        raise KeyError


def test_of_several_calls_the_first_caption_that_was_cut_is_shown() -> None:
    tokenizer = zoo.tokenizer("digits-tiny")
    calls = [["a cat", "first " * 90, "second " * 90], ["third " * 90], ["a dog"]]
    with pytest.warns(TruncatedTextWarning) as caught, report_once():
        for captions in calls:
            tokenizer(captions)
    (warning,) = caught
    assert str(warning.message).startswith(
        "3 of 5 captions have more than 20 tokens and were cut; the first of them: 'first first "
    )


def test_a_policy_is_checked_for_ids_too() -> None:
    model = zoo.build("digits-tiny")
    with pytest.raises(InputError, match="overflow must be"):
        model.encode_text(torch.zeros(1, 20, dtype=torch.int64), overflow="cut")
