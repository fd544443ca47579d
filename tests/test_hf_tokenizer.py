"""The tokenizers of transformers beside open_clip's `HFTokenizer`, those of tiktoken beside their definition."""

# ruff: noqa: RUF001
from __future__ import annotations

import functools
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import sentencepiece
import tiktoken
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.tokenizer import HFTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import ByT5Tokenizer, NllbTokenizer, PreTrainedTokenizerFast

import zoo
from hf_hub_server import commit_of, serve
from test_configs import TINY
from tokenizer_corpus import families
from zoo_core.errors import ConfigError, InputError
from zoo_core.testing import check_config, check_plugin
from zoo_core.text_cleaning import clean_and_collapse
from zoo_hf import tokenizer as module
from zoo_hf.config import HfTokenizerConfig, TiktokenConfig
from zoo_hf.tokenizer import HfTokenizer, TiktokenTokenizer

# Long texts are cut as the peer does it; what is said of that is tested in test_overflow.py.
pytestmark = pytest.mark.filterwarnings("ignore::zoo_core.errors.TruncatedTextWarning")

SENTENCES = [
    "A photo of a cat, asleep on the warm stones.",
    "Two dogs play in the snow near the old bridge!",
    "Ein Bild von einem Hund; l'été à Paris, où l'on mange.",
    "the_quick brown fox: jumps over the lazy dog?",
]
TEXTS = [
    *SENTENCES,
    "",
    "   spaces\tand\nlines  ",
    "&amp;lt;tags&amp;gt; and schÃ¶n",
    "UPPER lower MiXeD",
    "猫 и собака 🐱",
    "a_b-c.d,e!f",
    " ".join(SENTENCES * 5),
    *[text for texts in families(seed=3, share=0.002).values() for text in texts],
    "a </s> cat",
    "<s>dog</s><pad><mask>",
    "[CLS] a cat [SEP] [PAD]",
    "eng_Latn <eos> <unk>",
]
LENGTH = 24


def saved(folder: Path, tokenizer: tokenizers.Tokenizer, **tokens: str) -> Path:
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens).save_pretrained(folder)
    return folder


def wordpiece(folder: Path) -> Path:
    """BERT's: `[CLS] caption [SEP]`, padding 0."""
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made.train_from_iterator(SENTENCES, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special))
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(one, special.index(one)) for one in ("[CLS]", "[SEP]")]
    )
    made.decoder = decoders.WordPiece()
    return saved(
        folder, made, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]"
    )


def byte_bpe(folder: Path) -> Path:
    """RoBERTa's: `<s> caption </s>`, padding 1, every name of a special token."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=alphabet)
    )
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    names = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "pad_token": "<pad>"}
    return saved(folder, made, unk_token="<unk>", **names)


def unigram(folder: Path) -> Path:
    """T5's: `caption </s>` with nothing before it, padding 0."""
    made = tokenizers.Tokenizer(models.Unigram())
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    made.train_from_iterator(
        SENTENCES * 4, trainers.UnigramTrainer(vocab_size=90, special_tokens=special, unk_token="<unk>")
    )
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return saved(folder, made, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def sentencepiece_model(folder: Path) -> Path:
    """T5's as it was published: a model of sentencepiece, and no `tokenizer.json`."""
    folder.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4),
        model_prefix=str(folder / "spiece"),
        vocab_size=80,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    names = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "eos_token": "</s>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


def nllb(folder: Path) -> Path:
    """NLLB's: `language caption </s>`."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *sorted({one for text in SENTENCES for one in text if one != " "})]
    languages = ["eng_Latn", "deu_Latn"]
    NllbTokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)}, merges=[], additional_special_tokens=languages
    ).save_pretrained(folder)
    return folder


MAKERS: dict[str, Callable[[Path], Path]] = {
    "wordpiece": wordpiece,
    "byte-bpe": byte_bpe,
    "unigram": unigram,
    "sentencepiece": sentencepiece_model,
    "nllb": nllb,
}


def changed(source: Path, folder: Path, **said: Any) -> None:
    """Copy a tokenizer, and change what its config says."""
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | said))


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tokenizers")
    return {name: make(root / name) for name, make in MAKERS.items()}


def ours(folder: Path, context_length: int = LENGTH, **options: Any) -> HfTokenizer:
    from transformers import AutoTokenizer

    size = max(AutoTokenizer.from_pretrained(folder).get_vocab().values()) + 1
    return HfTokenizer(HfTokenizerConfig(name=str(folder), vocab_size=size, **options), context_length=context_length)


def as_the_peer(folder: Path, **options: Any) -> HfTokenizer:
    return ours(folder, special_tokens_in_text=True, **options)


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


# -- control tokens in text ------------------------------------------------------------------------

SPELLED = ["<s>", "</s>", "<pad>", "<mask>", "<eos>", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "eng_Latn", "deu_Latn"]
AROUND = {"wordpiece": ([2], [3]), "byte-bpe": ([0], [2]), "unigram": ([], [1]), "sentencepiece": ([], [1])}
AROUND |= {"nllb": ([49], [2]), "python": ([], [1])}
CONTROL = {"wordpiece": {0, 2, 3, 4}, "byte-bpe": {0, 1, 2, 4}, "unigram": {0, 1}, "sentencepiece": {0, 1}}
CONTROL |= {"nllb": {0, 1, 2, 48, 49, 50}, "python": {0, 1, *range(259, 264)}}


@functools.cache
def shared(folder: Path) -> HfTokenizer:
    return ours(folder, cleaning="none")


@pytest.fixture(scope="session")
def every_folder(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("python")
    ByT5Tokenizer(extra_ids=5).save_pretrained(folder)
    return folders | {"python": folder}


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


# -- odd text --------------------------------------------------------------------------------------

ODD = {
    "lone surrogates": "a \ud800 cat \udfff",
    "a pair of surrogates": "a \ud83d\udc36 dog",
    "NUL": "a\x00cat\x00",
    "a megabyte": "a photo of a cat " * 62_000,
    "one long word": "catdog" * 20_000,
    "emoji": "👨‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪",
    "entities": "&lt;b&gt; &amp;amp; &#128054; &nbsp;x &bogus;",
    "mojibake": "schÃ¶n â€œquotedâ€\x9d Ã©tÃ©",
    "right to left": "\u202eצילום של כלב\u202c صورة كلب",
    "spaces of every kind": "\u3000a\u00a0b\u2028c\u200bd\x85e",
}


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


WRONG = {
    "size": ("wordpiece", {"vocab_size": 7}, r"^tokenizer\.vocab_size: tokenizer '.*' has 1\d\d ids, not 7; set vocab_size: 1\d\d$"),
    "no language": ("wordpiece", {"language": "eng_Latn"}, r"^tokenizer\.language: .* puts no language into its rows"),
    "unknown language": ("nllb", {"language": "xyz_Latn"}, r"^tokenizer\.language: .* does not know the language 'xyz_Latn'"),
    "clips": ("unigram", {"mode": "clips"}, r"^tokenizer\.mode: .* has no bos_token, cls_token, which mode 'clips' needs"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_tokenizer_that_does_not_fit_its_config_is_refused(case: str, folders: dict[str, Path]) -> None:
    kind, options, message = WRONG[case]
    size = ours(folders[kind]).vocab_size
    config = HfTokenizerConfig(**{"name": str(folders[kind]), "vocab_size": size, **options})
    with pytest.raises(ConfigError, match=message):
        HfTokenizer(config, context_length=LENGTH)("a cat")


BESIDE: list[tuple[Any, str]] = [
    ({}, "text.pool_type: 'argmax' reads the feature at the largest id, but of tokenizer 'hf' that is"),
    ({"pool_type": "eos", "eos_id": 7}, "text.eos_id: 7 is not the end of text of tokenizer 'hf', which is 3"),
    (
        {"pool_type": "last", "causal": False, "pad_mask": True, "pad_id": 1},
        "text.pad_id: 1 is not the padding of tokenizer 'hf', which is 0",
    ),
    (
        {
            "tower": "hf-text",
            "config": {"model_type": "roberta", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
        },
        "tokenizer: the text tower takes id 1 for padding, but tokenizer 'hf' pads with 0",
    ),
]
"""The text tower, and why it does not go with a tokenizer that pads with 0 and ends captions with 3."""


@pytest.mark.parametrize(("text", "message"), BESIDE, ids=[message for _, message in BESIDE])
def test_a_text_tower_is_held_to_the_ids_of_a_tokenizer_once_it_is_loaded(
    text: dict[str, Any], message: str, folders: dict[str, Path]
) -> None:
    tower = {"tower": "clip-transformer", "width": 16, "heads": 2, "layers": 1, "vocab_size": 200, "context_length": 9}
    if text.get("tower") == "hf-text":
        tower = {"vocab_size": 200, "context_length": 9}
    name, size = str(folders["wordpiece"]), ours(folders["wordpiece"]).vocab_size
    model = zoo.build(
        TINY | {"text": tower | text, "tokenizer": {"type": "hf", "name": name, "vocab_size": size}}, towers=("text",)
    )
    with pytest.raises(ConfigError) as caught:
        model.encode_text("a cat")
    assert message in str(caught.value)


def test_a_tokenizer_without_padding_is_refused(tmp_path: Path) -> None:
    made = tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="b"))
    config = HfTokenizerConfig(name=str(saved(tmp_path, made)), vocab_size=2)
    with pytest.raises(ConfigError, match="has no padding token"):
        HfTokenizer(config, context_length=LENGTH)("a")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"^tokenizer\.name: '.*': it holds none of tokenizer\.json, "),
        ({"tokenizer.json": "{"}, r"^tokenizer\.name: tokenizer '.*' cannot be read as a tokenizer: "),
    ],
)
def test_a_folder_without_a_tokenizer_is_refused(files: dict[str, str], message: str, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        HfTokenizer(HfTokenizerConfig(name=str(tmp_path), vocab_size=9), context_length=LENGTH)("a")


@pytest.mark.parametrize("ids", [[0, 10_000], [-1], [1.5], ["a"]])
def test_ids_of_another_vocabulary_are_not_decoded(ids: list[Any], folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=rf"ids\[{len(ids) - 1}\]: expected an id from 0 to "):
        ours(folders["wordpiece"]).decode(ids)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 9}, "name: required key is missing"),
        ({"name": "", "vocab_size": 9}, "name: "),
        ({"name": "a/b"}, "vocab_size: required key is missing"),
        ({"name": "./here", "vocab_size": 9, "revision": "main"}, "revision: only a repository of the Hub has revisions"),
        ({"name": "a/b", "vocab_size": 9, "cleaning": "upper"}, "cleaning: 'upper' is not known"),
        ({"name": "a/b", "vocab_size": 9, "mode": "clip"}, "mode: 'clip' is not known"),
    ],
)  # fmt: skip
def test_a_wrong_config_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HfTokenizerConfig(**options)


# -- the Hub ---------------------------------------------------------------------------------------

ASK = """
import json, sys
from zoo_core.errors import ConfigError
from zoo_hf.config import HfTokenizerConfig
from zoo_hf.tokenizer import HfTokenizer
answers = []
for options in json.loads(sys.argv[1]):
    try:
        answers.append(HfTokenizer(HfTokenizerConfig(**options), context_length=9).encode("a photo of a cat"))
    except ConfigError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


def ask(home: Path, endpoint: str, *options: dict[str, Any]) -> list[Any]:
    """Return what tokenizers answer in a process of their own that knows this Hub alone."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(options)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def encoded(options: dict[str, Any]) -> list[int]:
    return HfTokenizer(HfTokenizerConfig(**options), context_length=9).encode("a photo of a cat")


def test_the_hub_is_asked_for_a_revision_and_offline_the_cache_is(
    tmp_path: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (ours(folders[kind]) for kind in ("wordpiece", "byte-bpe"))
    main = {"name": "acme/tiny", "vocab_size": first.vocab_size}
    v2 = {"name": "acme/tiny", "vocab_size": second.vocab_size, "revision": "v2"}
    commit = v2 | {"revision": commit_of("acme/tiny", folders["byte-bpe"])}
    expected = [one.encode("a photo of a cat") for one in (first, second, second)]
    revisions = {"main": folders["wordpiece"], "v2": folders["byte-bpe"]}
    with serve({"acme/tiny": revisions}) as endpoint:
        assert ask(tmp_path, endpoint, main, v2, commit, v2 | {"revision": "v3"}, main | {"name": "acme/other"}) == [
            *expected,
            "tokenizer.revision: 'acme/tiny' at revision 'v3': the repository has no such revision",
            "tokenizer.name: 'acme/other': the Hub shows no such repository; a folder is written ./acme/other",
        ]
    assert huggingface_hub.constants.HF_HUB_OFFLINE
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert [encoded(one) for one in (main, v2, commit)] == expected


@pytest.mark.parametrize(
    ("offline", "options", "why"),
    [
        (True, {}, "HF_HUB_OFFLINE is set"),
        (False, {"local_files_only": True}, "local_files_only is set"),
        (False, {}, "the Hub cannot be reached (Got: ConnectError: "),
    ],
)
def test_files_that_are_not_to_be_had_are_named_in_one_line(
    offline: bool, options: dict[str, Any], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve({}) as endpoint:
        pass  # nobody listens there any more
    constants = huggingface_hub.constants
    for name, value in {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": offline, "ENDPOINT": endpoint}.items():
        monkeypatch.setattr(constants, name, value)
    with pytest.raises(ConfigError) as caught:
        encoded({"name": "acme/tiny", "vocab_size": 9, "revision": "v2", **options})
    message = str(caught.value)
    assert message.startswith(
        "tokenizer.name: 'acme/tiny' at revision 'v2': tokenizer.json or what stands in for it is not in the local "
        f"cache, and {why}"
    )
    assert message.endswith(
        "; run `hf download acme/tiny --revision v2` where there is a network, or name a folder that holds it"
    )
    assert "\n" not in message


# -- tiktoken --------------------------------------------------------------------------------------

BYTES = {bytes([byte]): byte for byte in range(256)}
ENCODING = tiktoken.Encoding(
    "tiny",
    pat_str=r"\S+|\s+",
    mergeable_ranks=BYTES | {b"ca": 256, b"cat": 257, b"do": 258},
    special_tokens={"<|endoftext|>": 259},
)
N = 260


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Callable[..., TiktokenTokenizer]:
    tiktoken.list_encoding_names()  # finds the constructors, among which ours then stands
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "tiny", ENCODING)
    monkeypatch.setitem(tiktoken.registry.ENCODING_CONSTRUCTORS, "tiny", dict)

    def build(context_length: int = 8, **options: Any) -> TiktokenTokenizer:
        config = TiktokenConfig(**{"encoding": "tiny", "vocab_size": N + 3, **options})
        return TiktokenTokenizer(config, context_length=context_length)

    return build


A_CAT = [97, 32, 257]


@pytest.mark.parametrize(
    ("options", "row"),
    [
        ({}, [N + 2, *A_CAT, N, N + 1, N + 1, N + 1]),
        ({"add_bos": False}, [*A_CAT, N, N + 1, N + 1, N + 1, N + 1]),
        ({"add_eos": False}, [N + 2, *A_CAT, N + 1, N + 1, N + 1, N + 1]),
        ({"add_bos": False, "add_eos": False}, [*A_CAT, *[N + 1] * 5]),
    ],
)
def test_start_end_and_padding_stand_above_the_encoding(options: dict[str, Any], row: list[int], tiny: Any) -> None:
    assert tiny(**options)("a cat").tolist() == [row]


@pytest.mark.parametrize("add_bos", [True, False])
@pytest.mark.parametrize("add_eos", [True, False])
def test_a_row_is_its_caption_cut_to_fit(add_bos: bool, add_eos: bool, tiny: Any) -> None:
    tokenizer = tiny(add_bos=add_bos, add_eos=add_eos)
    for text, row in zip(TEXTS, tokenizer(TEXTS).tolist(), strict=True):
        whole = [*[N + 2] * add_bos, *ENCODING.encode_ordinary(text), *[N] * add_eos]
        if len(whole) > 8:
            whole = [*whole[: 8 - add_eos], *[N] * add_eos]
        assert row == whole + [N + 1] * (8 - len(whole))


def test_special_tokens_in_a_caption_are_plain_text(tiny: Any) -> None:
    assert 259 not in tiny(context_length=40)("<|endoftext|>")


SHORT_ODD = [text for text in ODD.values() if len(text) < 100]


@settings(deadline=None)
@given(texts=st.lists(st.text() | st.just("a<|endoftext|>b") | st.sampled_from(SHORT_ODD), max_size=3))
def test_any_caption_has_one_end_and_comes_back_from_tiktoken(texts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiktoken, "list_encoding_names", lambda: ["tiny"])
        patch.setattr(tiktoken, "get_encoding", lambda name: ENCODING)
        tokenizer = TiktokenTokenizer(TiktokenConfig(encoding="tiny", vocab_size=N + 3), context_length=8)
        rows = tokenizer(texts)
        for text, row in zip(texts, rows, strict=True):
            assert (row == N).sum() == 1
            assert torch.equal(tokenizer(text)[0], row)
            assert tokenizer.decode(tokenizer.encode(text)) == clean_and_collapse(text, "none")


def test_tiktoken_cleans_where_it_is_told_to(tiny: Any) -> None:
    assert tiny(cleaning="canonicalize").encode(" A  Cat! ") == A_CAT
    assert tiny().encode(" A ") == [32, 65, 32]


def test_tiktoken_decodes_to_the_end_of_text(tiny: Any) -> None:
    tokenizer = tiny(context_length=40)
    assert tokenizer.decode(tokenizer("où est le cat?")[0]) == "où est le cat?"
    assert tokenizer.decode([N + 2, 97, N, 98]) == "a"
    assert tokenizer.decode([0xC3]) == "�"
    with pytest.raises(InputError, match=r"ids\[0\]: expected an id from 0 to 262, found 263"):
        tokenizer.decode([N + 3])


def test_tiktoken_survives_a_pickle(tiny: Any) -> None:
    tokenizer = tiny(add_bos=False)
    assert torch.equal(pickle.loads(pickle.dumps(tokenizer))(TEXTS), tokenizer(TEXTS))


def test_an_encoding_of_another_size_is_refused(tiny: Any) -> None:
    message = "tokenizer.vocab_size: encoding 'tiny' has 260 ids, 263 with end, padding and start, not 99; set vocab_size: 263"
    with pytest.raises(ConfigError, match=message):
        tiny(vocab_size=99)("a")


def test_an_unknown_encoding_is_refused(tiny: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"tokenizer.encoding: tiktoken has no encoding 'cl10k' \(allowed: cl100k_base"
    ):
        tiny(encoding="cl10k").encode("a")


def test_an_encoding_that_cannot_be_downloaded_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: Any
) -> None:
    def refuse(name: str) -> None:
        raise ConnectionError("no route\nto the host")

    monkeypatch.setattr(tiktoken, "get_encoding", refuse)
    with pytest.raises(ConfigError) as caught:
        tiny(encoding="r50k_base").encode("a")
    assert str(caught.value) == (
        "tokenizer.encoding: the ranks of encoding 'r50k_base' cannot be downloaded: no route; "
        "set TIKTOKEN_CACHE_DIR to a folder that holds them"
    )


# -- the plugin ------------------------------------------------------------------------------------


def test_the_plugin_is_light_and_its_tokenizers_have_plain_configs() -> None:
    components = {one.spec.name: one for one in check_plugin(own_distribution())}
    check_config(components["hf"], {"name": "bert-base-uncased", "vocab_size": 30_522, "revision": "main"})
    check_config(components["tiktoken"], {})
    assert components["hf"].spec.requires == ("transformers", "tokenizers", "sentencepiece")
    assert components["tiktoken"].spec.requires == ("tiktoken",)


def own_distribution() -> str:
    from zoo_core.registry import default_registry

    return default_registry().get("tokenizer", "hf").plugin.distribution


def test_importing_the_tokenizers_imports_no_library_of_them() -> None:
    code = f"import sys, {module.__name__}; print([m for m in ('torch', 'transformers', 'tiktoken', 'tokenizers', 'huggingface_hub') if m in sys.modules])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
