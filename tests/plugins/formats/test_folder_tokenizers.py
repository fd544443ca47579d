"""Folders of transformers: their captions get the ids of transformers, and what is converted keeps its ids."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import zoo
from support.checkpoints.foreign import save_gemma_tokenizer
from support.models.tiny_architectures import CLIP, SIGLIP, changed, model_of
from support.tokenizers.tiny_tokenizers import MAKERS, SENTENCES, merges_of_words
from zoo.checkpoints.open import read_foreign_config
from zoo.transfer.convert import export
from zoo.transfer.hostile_captions import DAMAGED, PLAIN, SPELLED
from zoo_core.errors import CheckpointError, ConfigError

Json = dict[str, Any]

LENGTH = 40
CAPTIONS = [
    *PLAIN,
    *SPELLED,
    *DAMAGED,
    "ΟΔΥΣΣΕΥΣ İSTANBUL ẞ",
    "a cat" + " and a dog" * 40,
    "\u200b\ufeff\u00ad a \x07 b",
]


def clip(folder: Path) -> None:
    """Fill a folder with the tokenizer of CLIP, as transformers publishes it."""
    for name, content in zoo.tokenizer(CLIP).files_for("transformers").items():
        (folder / name).write_bytes(content)
    said(folder, split_special_tokens=None)


def siglip(folder: Path) -> None:
    """Fill a folder with SigLIP's: a model of sentencepiece, read by a class that drops case and punctuation."""
    MAKERS["sentencepiece"](folder / "made")
    (folder / "made" / "spiece.model").rename(folder / "spiece.model")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "SiglipTokenizer"}')


def xlm_roberta(folder: Path) -> None:
    """Fill a folder with XLM-R's: a unigram model with control tokens among its pieces."""
    from transformers import XLMRobertaTokenizer

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *map(chr, range(33, 127)), "▁cat", "▁a", "ho", "▁photo"]
    XLMRobertaTokenizer(vocab=[(piece, -float(len(pieces) - at)) for at, piece in enumerate(pieces)]).save_pretrained(
        folder
    )


def siglip2(folder: Path) -> None:
    """Fill a folder with SigLIP 2's: Gemma's in lower case."""
    from transformers import Siglip2Tokenizer

    merges: Any
    vocab, merges = merges_of_words(SENTENCES, 340, ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"])
    vocab |= {f"<0x{byte:02X}>": len(vocab) + byte for byte in range(256)}
    made = Siglip2Tokenizer(vocab=vocab, merges=merges, add_bos_token=False, add_eos_token=True, padding_side="right")
    made.save_pretrained(folder)


def of(kind: str) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        for file in MAKERS[kind](folder / "made").iterdir():
            file.rename(folder / file.name)

    return fill


def said(folder: Path, **change: Any) -> None:
    path = folder / "tokenizer_config.json"
    kept = {key: value for key, value in (json.loads(path.read_text()) | change).items() if value is not None}
    path.write_text(json.dumps(kept))


def stating(model_type: str, fill: Callable[[Path], None], folder: Path) -> Any:
    """Fill a folder as transformers does, without weights, and return its tokenizer there."""
    from transformers import AutoTokenizer

    fill(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    theirs: Any = AutoTokenizer.from_pretrained(folder)
    text = {"vocab_size": max(theirs.get_vocab().values()) + 1, "max_position_embeddings": LENGTH}
    if model_type == "clip":
        text["eos_token_id"] = theirs.eos_token_id or theirs.sep_token_id
    square: Json = {"height": 224, "width": 224}
    images: Json = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": square, "do_center_crop": False}
    if model_type == "siglip2":
        images = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "patch_size": 16, "max_num_patches": 256}
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, "text_config": text}))
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    return theirs


KINDS: list[tuple[str, str, Callable[[Path], None]]] = [
    ("clip", "CLIPTokenizer", clip),
    ("clip", "BertTokenizer", of("wordpiece")),
    ("clip", "RobertaTokenizer", of("byte-bpe")),
    ("clip", "XLMRobertaTokenizer", xlm_roberta),
    ("siglip", "SiglipTokenizer", siglip),
    ("siglip", "GemmaTokenizer", save_gemma_tokenizer),
    ("siglip", "T5Tokenizer", of("unigram")),
    ("siglip", "T5Tokenizer", of("sentencepiece")),
    ("siglip2", "Siglip2Tokenizer", siglip2),
    ("siglip2", "Siglip2Tokenizer", save_gemma_tokenizer),
]


@pytest.mark.parametrize("split", [False, True], ids=["control tokens", "text"])
@pytest.mark.parametrize(("model_type", "name", "fill"), KINDS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_captions_of_a_folder_have_the_ids_of_transformers(
    model_type: str, name: str, fill: Callable[[Path], None], split: bool, tmp_path: Path
) -> None:
    def filled(folder: Path) -> None:
        fill(folder)
        said(folder, tokenizer_class=name, split_special_tokens=split or None)

    theirs = stating(model_type, filled, tmp_path)
    assert type(theirs).__name__.removesuffix("Fast") == name
    found = zoo.tokenizer(read_foreign_config(tmp_path))
    options = {"padding": "max_length", "max_length": LENGTH, "truncation": True, "padding_side": "right"}
    captions = [one for one in CAPTIONS if not (split and one in SPELLED)]
    for caption in captions:
        row = theirs(caption, **options).input_ids
        assert found(caption, overflow="truncate")[0].tolist() == row, caption


@pytest.mark.parametrize(
    ("model_type", "fill"), [("clip", clip), ("siglip", save_gemma_tokenizer), ("siglip2", siglip2)]
)
def test_a_folder_whose_rows_are_padded_on_the_left_is_refused_at_its_line(
    model_type: str, fill: Callable[[Path], None], tmp_path: Path
) -> None:
    def left(folder: Path) -> None:
        fill(folder)
        said(folder, padding_side="left")

    stating(model_type, left, tmp_path)
    with pytest.raises(ConfigError, match=r"tokenizer_config.json:1:\d+: padding_side: pads rows on the left.*'right'"):
        read_foreign_config(tmp_path)


@pytest.mark.parametrize(("model_type", "fill"), [("siglip", siglip), ("siglip2", siglip2)])
def test_a_folder_that_pads_to_fewer_ids_than_its_tower_reads_is_refused_and_the_advice_works(
    model_type: str, fill: Callable[[Path], None], tmp_path: Path
) -> None:
    def short(folder: Path) -> None:
        fill(folder)
        said(folder, model_max_length=16)

    options = {"padding": "max_length", "truncation": True}
    assert len(stating(model_type, short, tmp_path)("a cat", **options).input_ids) == 16
    with pytest.raises(ConfigError, match=r"_config.json:1:\d+: model_max_length: pads rows to 16 .* set it to 40 if"):
        read_foreign_config(tmp_path)
    said(tmp_path, model_max_length=LENGTH)
    row = stating(model_type, lambda folder: None, tmp_path)("a cat", **options).input_ids
    assert zoo.tokenizer(read_foreign_config(tmp_path))("a cat")[0].tolist() == row


def test_the_first_clip_has_its_own_tokenizer_where_its_folder_holds_none(tmp_path: Path) -> None:
    stating("clip", clip, tmp_path)
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).unlink()
    assert dict(read_foreign_config(tmp_path) or {})["tokenizer"] == {"type": "clip-bpe"}


# conversion


@pytest.mark.parametrize(
    ("cleaning", "caption"),
    [
        ("canonicalize", "a photo of a cat, and 2 dogs"),
        ("lower", "This is a photo of a CAT."),
        ("whitespace", "cafe\u0301 "),
    ],
)
def test_a_cleaning_that_transformers_has_not_is_refused_and_the_advice_works(
    cleaning: str, caption: str, tmp_path: Path
) -> None:
    save_gemma_tokenizer(tmp_path / "tokenizer")
    ours = model_of(changed({"tokenizer": {"name": str(tmp_path / "tokenizer"), "cleaning": cleaning}}, SIGLIP))
    with pytest.raises(CheckpointError) as error:
        export(ours, tmp_path / "folder", to="transformers")
    assert f"of '{caption}" in str(error.value)
    assert "and would be read as" in str(error.value)
    assert "overrides=['tokenizer.cleaning=none']" in str(error.value)
    assert not (tmp_path / "folder").exists()
    model = zoo.save(ours, tmp_path / "model", probe=False)
    zoo.convert(model, tmp_path / "folder", to="transformers", overrides=["tokenizer.cleaning=none"])


def test_clip_is_written_with_a_word_about_damaged_captions(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from transformers import AutoTokenizer

    ours = model_of(CLIP)
    with caplog.at_level(logging.WARNING):
        folder = export(ours, tmp_path / "folder", to="transformers")
    assert caplog.text.count("damaged text and control tokens in captions are read otherwise there: id ") == 1
    theirs: Any = AutoTokenizer.from_pretrained(folder)
    for caption in PLAIN:
        ids = theirs(caption).input_ids
        assert ours.tokenizer(caption, 77)[0].tolist()[: len(ids)] == ids, caption
    end = theirs.eos_token_id
    assert [theirs(caption).input_ids.count(end) for caption in SPELLED] == [1] * len(SPELLED)


def test_a_folder_of_clip_comes_back_with_the_ids_of_its_control_tokens(tmp_path: Path) -> None:
    first = export(model_of(CLIP), tmp_path / "first", to="transformers")
    said(first, split_special_tokens=None)
    with pytest.raises(CheckpointError, match=r"or \['tokenizer.type=clip-bpe'\] for that of CLIP"):
        zoo.convert(first, tmp_path / "open_clip", to="open_clip")
    zoo.convert(first, tmp_path / "open_clip", to="open_clip", overrides=["tokenizer.type=clip-bpe"])
    again = zoo.convert(first, tmp_path / "again", to="transformers")
    one, other = (zoo.build(folder, towers=("text",)).tokenizer for folder in (first, again))
    assert one is not None
    assert other is not None
    assert one(CAPTIONS, overflow="truncate").tolist() == other(CAPTIONS, overflow="truncate").tolist()
    assert one.encode("a<|endoftext|>")[1] == one.eot_id


def test_a_cut_vocabulary_of_clip_is_written_too(tmp_path: Path) -> None:
    ours = model_of(changed({"tokenizer": {"vocab_size": 600}, "text": {"vocab_size": 600}}, CLIP))
    found = zoo.build(export(ours, tmp_path / "folder", to="transformers"), towers=("text",)).tokenizer
    assert found is not None
    rows = zip(found(PLAIN, 64).tolist(), ours.tokenizer(PLAIN, 64).tolist(), strict=True)
    assert all(row[: other.index(599) + 1] == other[: other.index(599) + 1] for row, other in rows)


def test_one_slow_measurement_condemns_no_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo_hf import bounds

    clock = iter([0.0, 9.0, 0.0, 0.001, *[0.0] * 8])
    monkeypatch.setattr(bounds.time, "thread_time", lambda: next(clock))
    assert not bounds._grows_steeply(lambda _: None, "1")
