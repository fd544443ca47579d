"""Control tokens that a caption spells out: text, in the tokenizers of transformers, unless they are asked for."""

# ruff: noqa: RUF001
from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.tokenizer import HFTokenizer

from support.tokenizers.tiny_tokenizers import LENGTH, TEXTS, as_the_peer, ours
from zoo_hf.tokenizer import HfTokenizer

# Long texts are cut as the peer does it; what is said of that is tested in test_overflow.py.
pytestmark = pytest.mark.filterwarnings("ignore::zoo_core.errors.TruncatedTextWarning")

SPELLED = ["<s>", "</s>", "<pad>", "<mask>", "<eos>", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "eng_Latn", "deu_Latn"]
AROUND = {"wordpiece": ([2], [3]), "byte-bpe": ([0], [2]), "unigram": ([], [1]), "sentencepiece": ([], [1])}
AROUND |= {"nllb": ([49], [2]), "gemma": ([], [1]), "python": ([], [1])}
CONTROL = {"wordpiece": {0, 2, 3, 4}, "byte-bpe": {0, 1, 2, 4}, "unigram": {0, 1}, "sentencepiece": {0, 1}}
CONTROL |= {"nllb": {0, 1, 2, 48, 49, 50}, "gemma": {0, 1, 2, 4}, "python": {0, 1, *range(259, 264)}}


@functools.cache
def shared(folder: Path) -> HfTokenizer:
    return ours(folder, cleaning="none")


@pytest.mark.parametrize("kind", AROUND)
@settings(deadline=None, max_examples=60)
@given(
    texts=st.lists(
        st.lists(
            st.sampled_from([*SPELLED, "＜/s＞", "a", " ", "cat", "ß", "\x00"]) | st.text(max_size=4), max_size=9
        ).map("".join),
        max_size=3,
    )
)
def test_no_caption_holds_a_control_token(kind: str, texts: list[str], every_folder: dict[str, Path]) -> None:
    tokenizer = shared(every_folder[kind])
    before, after = AROUND[kind]
    rows = tokenizer(texts)
    assert rows.shape == (len(texts), LENGTH)
    assert torch.equal(rows, tokenizer(texts))
    for text, row in zip(texts, rows, strict=True):
        ids = tokenizer.encode(text)
        assert CONTROL[kind].isdisjoint(ids)
        whole = [*before, *ids[: LENGTH - len(before) - len(after)], *after]
        assert row.tolist() == [*whole, *[tokenizer.pad_id] * (LENGTH - len(whole))]
        assert torch.equal(tokenizer(text)[0], row)


@pytest.mark.parametrize("kind", AROUND)
def test_control_ids_come_out_of_captions_where_they_are_asked_for(kind: str, every_folder: dict[str, Path]) -> None:
    """As in the peer; this is what the default keeps out."""
    known = [text for text in SPELLED if ours(every_folder[kind]).loaded.convert_tokens_to_ids(text) in CONTROL[kind]]
    tokenizer = as_the_peer(every_folder[kind], cleaning="none")
    assert known
    assert all(not CONTROL[kind].isdisjoint(tokenizer.encode(f"a {text} cat")) for text in known)


@pytest.mark.parametrize("kind", ["byte-bpe", "python"])
def test_a_control_token_that_the_vocabulary_can_spell_is_spelled(kind: str, every_folder: dict[str, Path]) -> None:
    tokenizer = shared(every_folder[kind])
    for text in ("<s>", "a</s>cat", "<pad>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_unigram_model_spells_a_control_token_with_a_space_in_it(folders: dict[str, Path]) -> None:
    tokenizer = shared(folders["unigram"])
    assert tokenizer.encode("a </s> cat") == tokenizer.encode("a < /s> cat")
    assert 1 not in tokenizer.encode("a ＜/s＞ cat")  # normalised, it is the same


@pytest.mark.parametrize("kind", ["unigram", "sentencepiece"])
def test_other_captions_have_the_ids_of_the_peer(kind: str, folders: dict[str, Path]) -> None:
    texts = [text for text in TEXTS if not any(one in text for one in SPELLED)]
    assert len(texts) > 100
    peer = HFTokenizer(str(folders[kind]), context_length=LENGTH)
    assert torch.equal(ours(folders[kind])(texts), peer(texts))
