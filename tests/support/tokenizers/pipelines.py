"""Tokenizers of the tokenizers library: the pipelines that transformers builds, and some that read words otherwise."""

from __future__ import annotations

import functools
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from support.tokenizers.tiny_tokenizers import merges_of_words
from zoo_hf.captions import CaptionEncoder

ENGLISH = [
    "A photo of a cat, asleep on the warm stones.",
    "It's 2 dogs' 1st play in the snow -- they don't, we've and I'll say we're near @home_page #12,345.60!",
    "the_quick brown fox: jumps over (the) lazy dog? <s> </s> 'tis & rock'n'roll",
]
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]


TRAINERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "BPE": (trainers.BpeTrainer, {}),
    "WordPiece": (trainers.WordPieceTrainer, {}),
    "WordLevel": (trainers.WordLevelTrainer, {}),
    "Unigram": (trainers.UnigramTrainer, {"unk_token": "<unk>"}),
}


def tokenizer(
    model: str, normalizer: Any = None, pre_tokenizer: Any = None, training: Any = None, **options: Any
) -> Tokenizer:
    """Train a model on pieces that `training` cuts, else `pre_tokenizer`, and put it into a pipeline."""
    trainer, said = TRAINERS[model]
    made = Tokenizer(getattr(models, model)(**({} if said else {"unk_token": "<unk>"}), **options))
    made.pre_tokenizer = sequence(pre_tokenizers, training or pre_tokenizer)
    made.train_from_iterator(ENGLISH * 2, trainer(vocab_size=150, special_tokens=SPECIAL, show_progress=False, **said))
    made.normalizer = sequence(normalizers, normalizer)
    made.pre_tokenizer = sequence(pre_tokenizers, pre_tokenizer)
    return made


def sequence(module: Any, steps: Any) -> Any:
    return module.Sequence(steps) if isinstance(steps, list) else steps


@functools.cache
def charsmap(rules: str = "") -> bytes:
    """Return the table by which sentencepiece normalizes: its own, or one of these rules."""
    trained, proto = BytesIO(), sentencepiece_model_pb2.ModelProto()
    with TemporaryDirectory() as folder:
        Path(folder, "rules.tsv").write_text(rules)
        said = {"normalization_rule_tsv": str(Path(folder, "rules.tsv"))} if rules else {}
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(ENGLISH),
            model_writer=trained,
            vocab_size=60,
            hard_vocab_limit=False,
            minloglevel=2,
            **said,
        )
    proto.ParseFromString(trained.getvalue())
    return proto.normalizer_spec.precompiled_charsmap


def mark(scheme: str = "always", split: bool = True) -> Any:
    return pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)


def precompiled(rules: str = "") -> Any:
    return normalizers.Precompiled(charsmap(rules))


def bytes_of(prefix: bool, normalizer: Any = None) -> Tokenizer:
    return tokenizer("BPE", normalizer, pre_tokenizers.ByteLevel(add_prefix_space=prefix))


def whole(normalizer: Any, pre_tokenizer: Any = None) -> Tokenizer:
    """Return a byte-pair encoding that sees whole texts, and spells what is unknown by its bytes."""
    vocab, merges = merges_of_words(ENGLISH, 400, [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))])
    made = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer, made.pre_tokenizer = sequence(normalizers, normalizer), pre_tokenizer
    made.add_special_tokens(SPECIAL)
    return made


TO_MARKS = normalizers.Replace(" ", "▁")
NO_SPACES = pre_tokenizers.Split(" ", "merged_with_previous")
WORDS_WITH_MARKS = [pre_tokenizers.WhitespaceSplit(), mark()]
BERT = pre_tokenizers.BertPreTokenizer()


def with_added(made: Tokenizer, *tokens: AddedToken) -> Tokenizer:
    made.add_tokens(list(tokens))
    return made


APART: dict[str, tuple[str, Callable[[], Tokenizer]]] = {
    "bert, uncased": ("", lambda: tokenizer("WordPiece", normalizers.BertNormalizer(lowercase=True), BERT)),
    "bert, cased": ("", lambda: tokenizer("WordPiece", normalizers.BertNormalizer(lowercase=False), BERT)),
    "words": ("", lambda: tokenizer("WordLevel", normalizers.Lowercase(), pre_tokenizers.Whitespace())),
    "roberta": (" ", lambda: bytes_of(False)),
    "roberta, prefixed": (" ", lambda: bytes_of(True)),
    "modernbert": (
        " ",
        lambda: with_added(
            bytes_of(False, normalizers.NFC()),
            *(AddedToken(" " * count, normalized=True) for count in range(2, 25)),
            AddedToken("|||IP_ADDRESS|||", normalized=True),
        ),
    ),
    "t5, xlm-roberta": ("", lambda: tokenizer("Unigram", precompiled(), WORDS_WITH_MARKS)),
    "of sentencepiece": (
        "",
        lambda: tokenizer(
            "Unigram",
            [precompiled(), normalizers.Strip(left=False), normalizers.Replace(Regex(" {2,}"), "▁")],
            mark(),
        ),
    ),
    "nllb": (
        "",
        lambda: tokenizer(
            "BPE", [precompiled(), normalizers.Replace(Regex(" {2,}"), " ")], mark(), fuse_unk=True
        ),
    ),
    "one mark before the text": ("", lambda: tokenizer("Unigram", normalizers.NFKC(), mark("first"))),
    "no mark before the text": (" ", lambda: tokenizer("Unigram", None, mark("never"))),
    "gemma": (" ", lambda: whole(TO_MARKS, NO_SPACES)),
    "gemma, no pre-tokenizer": (" ", lambda: whole(TO_MARKS)),
    "siglip 2": (" ", lambda: whole([normalizers.Lowercase(), TO_MARKS], NO_SPACES)),
    "llama 2": ("", lambda: whole([normalizers.Prepend("▁"), TO_MARKS])),
    "llama": ("", lambda: whole(None, mark("first", split=False))),
    "sequences in sequences": (
        "",
        lambda: tokenizer("Unigram", [normalizers.Sequence([normalizers.NFC()])], [sequence(pre_tokenizers, WORDS_WITH_MARKS)]),
    ),
}  # fmt: skip
"""Pipelines in which words are read apart, and what stands before a word that is encoded alone."""


def across_words() -> Tokenizer:
    vocab = {piece: index for index, piece in enumerate([*SPECIAL, "▁", "a", "b", "a▁", "a▁b"])}
    made = Tokenizer(models.BPE(vocab=vocab, merges=[("a", "▁"), ("a▁", "b")], unk_token="<unk>"))
    made.normalizer = TO_MARKS
    return made


def unreachable(**options: Any) -> Tokenizer:
    vocab = {piece: index for index, piece in enumerate([*SPECIAL, "▁", "a", "b", "▁ab"])}
    made = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", **options))
    made.normalizer = TO_MARKS
    return made


def without_mark() -> Tokenizer:
    made = Tokenizer(models.BPE(vocab={"<unk>": 0, "a": 1}, merges=[], unk_token="<unk>", fuse_unk=True))
    made.normalizer = TO_MARKS
    return made


def with_suffix() -> Tokenizer:
    vocab = {piece: index for index, piece in enumerate([*SPECIAL, "▁", "a", "a</w>"])}
    made = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", end_of_word_suffix="</w>"))
    made.normalizer = TO_MARKS
    return made


WRONG: dict[str, tuple[str, str, Callable[[], Tokenizer]]] = {
    "an added token of two words": ("a big cat", "", lambda: with_added(tokenizer("WordPiece", None, BERT), AddedToken("big cat"))),
    "a normalized one": ("a big cat", " ", lambda: with_added(whole(TO_MARKS), AddedToken("big cat", normalized=True))),
    "one that ends with a space": ("a cat", " ", lambda: with_added(bytes_of(False), AddedToken("a "))),
    "a table that takes letters": ("b a c", "", lambda: tokenizer("Unigram", precompiled("61\t\n"), mark())),
    "a token across words": ("a b", " ", across_words),
    "tokens that no merges make": ("b ab", " ", lambda: unreachable(ignore_merges=True)),
    "marks that are unknown": ("! !", " ", without_mark),
    "ends of words": ("a a", " ", with_suffix),
    "a space that is stripped": ("a cat", " ", lambda: bytes_of(False, normalizers.Strip())),
    "marks before the first word alone": ("a cat", "", lambda: tokenizer("Unigram", None, [pre_tokenizers.WhitespaceSplit(), mark("first")], training=mark())),
    "spaces that become letters": ("a cat", "", lambda: tokenizer("WordPiece", normalizers.Replace(" ", "x"), BERT)),
    "rules that look at neighbours": ("a cat", "", lambda: tokenizer("WordPiece", normalizers.Replace(Regex("a c"), "x"), BERT)),
    "bytes without their rule": ("a cat", "", lambda: tokenizer("BPE", None, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))),
}  # fmt: skip
"""Pipelines in which words do not have ids of their own, a text that shows it, and what one might put before a word."""

UNPROVEN: dict[str, Callable[[], Tokenizer]] = {
    "a unigram model of whole texts": lambda: tokenizer("Unigram", None, mark(split=False)),
    "a word-piece model of whole texts": lambda: tokenizer("WordPiece", TO_MARKS, None, training=BERT),
    "a table that makes spaces": lambda: bytes_of(False, precompiled("61\t20 20\n")),
    "a prefix without marks": lambda: tokenizer("Unigram", normalizers.Prepend("▁"), mark("never")),
    "dropout": lambda: tokenizer("BPE", None, pre_tokenizers.ByteLevel(), dropout=0.5),
    "punctuation apart": lambda: tokenizer("Unigram", None, [pre_tokenizers.Punctuation(), mark()]),
    "a rule of one's own": lambda: tokenizer("BPE", None, pre_tokenizers.Split(Regex(r"\w+"), "isolated")),
    "no pre-tokenizer": lambda: tokenizer("BPE", None, None, training=BERT),
    "another mark": lambda: tokenizer("Unigram", None, pre_tokenizers.Metaspace(replacement="_")),
    "marks twice": lambda: whole([normalizers.Prepend("▁"), TO_MARKS], mark(split=False)),
}


@functools.cache
def encoder(name: str, special_tokens_in_text: bool = False) -> CaptionEncoder:
    return encoder_of(APART[name][1](), special_tokens_in_text)


def encoder_of(made: Tokenizer, special_tokens_in_text: bool = False) -> CaptionEncoder:
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return CaptionEncoder(PreTrainedTokenizerFast(tokenizer_object=made, **names), special_tokens_in_text)
