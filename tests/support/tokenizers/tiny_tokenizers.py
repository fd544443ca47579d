"""Tokenizers of each kind that transformers knows, made here: tiny ones for tests, larger ones for benchmarks.

The published ones are of these kinds: BERT, RoBERTa, T5 (as a model of sentencepiece too), NLLB, and SigLIP 2's Gemma.
"""

# ruff: noqa: RUF001
from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sentencepiece
import tiktoken
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, GemmaTokenizer, NllbTokenizer, PreTrainedTokenizerFast

from support.tokenizers.tokenizer_corpus import families
from zoo_hf.config import HfTokenizerConfig
from zoo_hf.tokenizer import HfTokenizer

LENGTH = 24
"""Ids in a row."""

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

BYTES = {bytes([byte]): byte for byte in range(256)}
ENCODING = tiktoken.Encoding(
    "tiny",
    pat_str=r"\S+|\s+",
    mergeable_ranks=BYTES | {b"ca": 256, b"cat": 257, b"do": 258},
    special_tokens={"<|endoftext|>": 259},
)


def saved(folder: Path, tokenizer: tokenizers.Tokenizer, **tokens: str) -> Path:
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens).save_pretrained(folder)
    return folder


def wordpiece(folder: Path, texts: Sequence[str] = SENTENCES, size: int = 120) -> Path:
    """BERT's: `[CLS] caption [SEP]`, padding 0."""
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    )
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(one, special.index(one)) for one in ("[CLS]", "[SEP]")]
    )
    made.decoder = decoders.WordPiece()
    return saved(
        folder, made, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]"
    )


def byte_bpe(folder: Path, texts: Sequence[str] = SENTENCES, size: int = 330) -> Path:
    """RoBERTa's: `<s> caption </s>`, padding 1, every name of a special token."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    names = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "pad_token": "<pad>"}
    return saved(folder, made, unk_token="<unk>", **names)


def unigram(folder: Path, texts: Sequence[str] = SENTENCES * 4, size: int = 90) -> Path:
    """T5's: `caption </s>` with nothing before it, padding 0."""
    made = tokenizers.Tokenizer(models.Unigram())
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=size, special_tokens=special, unk_token="<unk>", show_progress=False)
    made.train_from_iterator(texts, trainer)
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return saved(folder, made, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def sentencepiece_model(folder: Path, texts: Sequence[str] = SENTENCES * 4, size: int = 80) -> Path:
    """T5's as it was published: a model of sentencepiece, and no `tokenizer.json`."""
    folder.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str(folder / "spiece"),
        vocab_size=size,
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


def nllb(folder: Path, texts: Sequence[str] = SENTENCES, size: int = 48) -> Path:
    """NLLB's: `language caption </s>`."""
    vocab, merges = merges_of_words(texts, size, ["<s>", "<pad>", "</s>", "<unk>"])
    languages = ["eng_Latn", "deu_Latn"]
    NllbTokenizer(vocab=vocab, merges=merges, additional_special_tokens=languages).save_pretrained(folder)
    return folder


def gemma(folder: Path, texts: Sequence[str] = SENTENCES, size: int = 340) -> Path:
    """SigLIP 2's: `caption <eos>`, padding 0; nothing cuts a text into words, and bytes stand in for what is unknown."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocab, merges = merges_of_words(texts, size, special)
    said: dict[str, Any] = {"add_bos_token": False, "add_eos_token": True, "padding_side": "right"}
    GemmaTokenizer(vocab=vocab, merges=merges, **said).save_pretrained(folder)
    return folder


def merges_of_words(
    texts: Sequence[str], size: int, special: list[str]
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return the tokens of a byte-pair encoding in which marks begin words, and its merges."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    made.train_from_iterator(texts, trainer)
    state = json.loads(made.model.__getstate__())
    return state["vocab"], [(left, right) for left, right in state["merges"]]


MAKERS: dict[str, Callable[..., Path]] = {
    "wordpiece": wordpiece,
    "byte-bpe": byte_bpe,
    "unigram": unigram,
    "sentencepiece": sentencepiece_model,
    "nllb": nllb,
    "gemma": gemma,
}


def changed(source: Path, folder: Path, **said: Any) -> None:
    """Copy a tokenizer, and change what its config says."""
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | said))


def ours(folder: Path, context_length: int = LENGTH, **options: Any) -> HfTokenizer:
    size = max(AutoTokenizer.from_pretrained(folder).get_vocab().values()) + 1
    return HfTokenizer(HfTokenizerConfig(name=str(folder), vocab_size=size, **options), context_length=context_length)


def as_the_peer(folder: Path, **options: Any) -> HfTokenizer:
    return ours(folder, special_tokens_in_text=True, **options)
