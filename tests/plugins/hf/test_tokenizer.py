"""The tokenizers of transformers beside open_clip's `HFTokenizer`, and what the interface promises of them."""

# ruff: noqa: RUF001
from __future__ import annotations

import functools
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.tokenizer import HFTokenizer
from transformers import ByT5Tokenizer

from support.tokenizers.tiny_tokenizers import LENGTH, MAKERS, ODD, SENTENCES, TEXTS, as_the_peer, changed, ours
from zoo_core.errors import ConfigError
from zoo_core.testing import check_config, check_plugin
from zoo_core.text.cleaning import clean_and_collapse
from zoo_hf import tokenizer as module
from zoo_hf.config import HfTokenizerConfig
from zoo_hf.tokenizer import HfTokenizer

# Long texts are cut as the peer does it; what is said of that is tested in test_overflow.py.
pytestmark = pytest.mark.filterwarnings("ignore::zoo_core.errors.TruncatedTextWarning")


def assert_equal_to_the_peer(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.dtype == torch.int64
    different = [TEXTS[row] for row, same in enumerate((found == expected).all(dim=1)) if not same]
    assert not different, f"{len(different)} of {len(TEXTS)} differ, first {different[0]!r}"


# -- the peer --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cleaning", ["whitespace", "lower", "canonicalize"])
@pytest.mark.parametrize("kind", MAKERS)
def test_ids_equal_the_peers(kind: str, cleaning: Any, folders: dict[str, Path]) -> None:
    peer = HFTokenizer(str(folders[kind]), context_length=LENGTH, clean=cleaning)
    assert_equal_to_the_peer(as_the_peer(folders[kind], cleaning=cleaning)(TEXTS), peer(TEXTS))


@pytest.mark.parametrize("length", [3, 5, 200])
def test_ids_equal_the_peers_at_any_length(length: int, folders: dict[str, Path]) -> None:
    peer = HFTokenizer(str(folders["byte-bpe"]), context_length=LENGTH)
    assert_equal_to_the_peer(as_the_peer(folders["byte-bpe"])(TEXTS, length), peer(TEXTS, length))


def test_the_separator_gives_way_to_padding_as_the_peers_does(folders: dict[str, Path]) -> None:
    peer = HFTokenizer(str(folders["wordpiece"]), context_length=LENGTH, strip_sep_token=True)
    found = as_the_peer(folders["wordpiece"], strip_sep_token=True)(TEXTS)
    assert_equal_to_the_peer(found, peer(TEXTS))
    assert not (found == 3).any()


def test_a_language_stands_at_the_head_of_each_row(folders: dict[str, Path]) -> None:
    """The peer agrees on the default; any other language it sets in a way that transformers 5 ignores."""
    peer = HFTokenizer(str(folders["nllb"]), context_length=LENGTH, language="eng_Latn")
    english, german = (as_the_peer(folders["nllb"], language=language) for language in ("eng_Latn", "deu_Latn"))
    assert_equal_to_the_peer(english(TEXTS), peer(TEXTS))
    known = english.loaded.convert_tokens_to_ids(["eng_Latn", "deu_Latn"])
    for rows, language in zip((english(TEXTS), german(TEXTS)), known, strict=True):
        assert (rows[:, 0] == language).all()
    assert torch.equal(english(TEXTS)[:, 1:], german(TEXTS)[:, 1:])


def test_the_mode_clips_equals_the_peers(folders: dict[str, Path]) -> None:
    peer = HFTokenizer(str(folders["byte-bpe"]), context_length=LENGTH, tokenizer_mode="clips")
    assert_equal_to_the_peer(as_the_peer(folders["byte-bpe"], mode="clips")(TEXTS), peer(TEXTS))


def test_a_tokenizer_written_in_python_gives_the_ids_of_the_peer(tmp_path: Path) -> None:
    """Nothing of the tokenizers library stands behind ByT5's: its ids are bytes."""
    ByT5Tokenizer(extra_ids=5).save_pretrained(tmp_path)
    peer = HFTokenizer(str(tmp_path), context_length=LENGTH)
    assert_equal_to_the_peer(as_the_peer(tmp_path)(TEXTS), peer(TEXTS))


def test_a_caption_that_is_cut_at_its_beginning_is_cut_as_the_peer_does(
    tmp_path: Path, folders: dict[str, Path]
) -> None:
    changed(folders["byte-bpe"], tmp_path, truncation_side="left")
    assert_equal_to_the_peer(as_the_peer(tmp_path)(TEXTS), HFTokenizer(str(tmp_path), context_length=LENGTH)(TEXTS))


# -- odd text --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in MAKERS for name in ODD if name != "a megabyte" or kind in ("byte-bpe", "unigram")],
)
def test_odd_text_has_the_ids_of_the_peer(kind: str, name: str, folders: dict[str, Path]) -> None:
    peer = HFTokenizer(str(folders[kind]), context_length=LENGTH)
    assert torch.equal(shared_as_the_peer(folders[kind])(ODD[name]), peer(ODD[name]))


@functools.cache
def shared_as_the_peer(folder: Path) -> HfTokenizer:
    return as_the_peer(folder)


# -- what the interface promises -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "start", "end", "padding"),
    [("wordpiece", 2, 3, 0), ("byte-bpe", 0, 2, 1), ("unigram", None, 1, 0), ("nllb", 0, 2, 1)],
)
def test_special_ids_are_those_of_the_tokenizer(
    kind: str, start: int | None, end: int, padding: int, folders: dict[str, Path]
) -> None:
    tokenizer = ours(folders[kind])
    assert (tokenizer.sot_id, tokenizer.eot_id, tokenizer.pad_id) == (start, end, padding)


@pytest.mark.parametrize("kind", ["wordpiece", "byte-bpe", "unigram"])
def test_a_caption_that_is_cut_keeps_its_end(kind: str, folders: dict[str, Path]) -> None:
    tokenizer = ours(folders[kind])
    row = tokenizer(TEXTS[10])[0]
    assert row[-1] == tokenizer.eot_id
    assert (
        row[:-1].tolist()
        == [*([tokenizer.sot_id] if tokenizer.sot_id is not None else []), *tokenizer.encode(TEXTS[10])][: LENGTH - 1]
    )


@pytest.mark.parametrize("options", [{}, {"mode": "clips"}], ids=["plain", "clips"])
def test_captions_that_were_cut_are_counted(options: dict[str, Any], folders: dict[str, Path]) -> None:
    tokenizer = ours(folders["byte-bpe"], **options)
    whole = [len(tokenizer.encode(text)) for text in TEXTS]
    longer = [number for number, length in enumerate(whole) if length > LENGTH - (3 if options else 2)]
    assert tokenizer.fill(TEXTS, torch.zeros(len(TEXTS), LENGTH, dtype=torch.int64).numpy()) == longer
    assert 0 < len(longer) < len(TEXTS)


@pytest.mark.parametrize("kind", ["byte-bpe", "unigram"])
def test_decoding_leaves_special_tokens_and_padding_out(kind: str, folders: dict[str, Path]) -> None:
    tokenizer = ours(folders[kind], context_length=80)
    assert tokenizer.decode(tokenizer(SENTENCES[0])[0]) == SENTENCES[0]
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize("kind", ["byte-bpe", "unigram", "sentencepiece", "python"])
@settings(deadline=None, max_examples=60)
@given(text=st.text("abcdeno ", max_size=40))
def test_decoding_gives_the_cleaned_text_back(kind: str, text: str, every_folder: dict[str, Path]) -> None:
    """Where the vocabulary can spell it: that of bytes can spell everything."""
    tokenizer = cleaning_one(every_folder[kind])
    if kind in ("byte-bpe", "python"):
        text += " où ‘x’ , don 't . 猫 🐱 </s>"
    assert tokenizer.decode(tokenizer.encode(text)) == clean_and_collapse(text, "whitespace")


@functools.cache
def cleaning_one(folder: Path) -> HfTokenizer:
    return ours(folder)


def test_text_is_left_alone_without_cleaning(folders: dict[str, Path]) -> None:
    tokenizer = ours(folders["byte-bpe"], cleaning="none")
    assert tokenizer.decode(tokenizer.encode("  a\n&amp; b ")) == "  a\n&amp; b "


def test_rows_are_padded_on_the_right_whatever_the_tokenizer_says(tmp_path: Path, folders: dict[str, Path]) -> None:
    changed(folders["byte-bpe"], tmp_path, padding_side="left")
    assert torch.equal(ours(tmp_path)(SENTENCES), ours(folders["byte-bpe"])(SENTENCES))


def test_no_captions_give_no_rows(folders: dict[str, Path]) -> None:
    assert ours(folders["wordpiece"])([]).shape == (0, LENGTH)


def test_threads_may_share_one_at_different_lengths(folders: dict[str, Path]) -> None:
    tokenizer = ours(folders["byte-bpe"])
    lengths = [5, 9, 17, 40] * 8
    alone = [tokenizer(SENTENCES, length) for length in lengths]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(partial(tokenizer, SENTENCES), lengths))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


def test_a_pickle_holds_the_config_alone(folders: dict[str, Path]) -> None:
    tokenizer = ours(folders["byte-bpe"])
    expected = tokenizer(TEXTS)
    packed = pickle.dumps(tokenizer)
    assert len(packed) < 1000
    assert torch.equal(pickle.loads(packed)(TEXTS), expected)


def test_nothing_is_loaded_until_it_is_used(tmp_path: Path) -> None:
    config = HfTokenizerConfig(name=str(tmp_path / "nowhere"), vocab_size=100)
    tokenizer = HfTokenizer(config, context_length=7)
    assert (tokenizer.context_length, tokenizer.vocab_size, config.token_count()) == (7, 100, 100)
    with pytest.raises(ConfigError, match="there is no such folder"):
        tokenizer("a cat")


# -- the plugin ------------------------------------------------------------------------------------


def test_the_plugin_is_light_and_its_tokenizer_has_a_plain_config() -> None:
    components = {one.spec.name: one for one in check_plugin(own_distribution())}
    check_config(components["hf"], {"name": "bert-base-uncased", "vocab_size": 30_522, "revision": "main"})
    assert components["hf"].spec.requires == ("transformers", "tokenizers", "sentencepiece")


def own_distribution() -> str:
    from zoo_core.registry import default_registry

    return default_registry().get("tokenizer", "hf").plugin.distribution


def test_importing_the_tokenizers_imports_no_library_of_them() -> None:
    code = f"import sys, {module.__name__}; print([m for m in ('torch', 'transformers', 'tiktoken', 'tokenizers', 'huggingface_hub') if m in sys.modules])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
