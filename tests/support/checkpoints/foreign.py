"""What tests of checkpoints of other libraries share: tensors of a file, and how they are compared."""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo_core.checkpoints import TensorSource

WORDS = 600
"""Ids of the tiny text towers; the last one ends a caption."""


def tensors_of(source: TensorSource) -> dict[str, Tensor]:
    found = {key: source.read(key) for key in source.entries}
    for key, info in source.entries.items():
        assert (info.dtype, info.shape) == (str(found[key].dtype).removeprefix("torch."), tuple(found[key].shape))
    return found


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        tensor.dtype == other[key].dtype and torch.equal(tensor, other[key]) for key, tensor in one.items()
    )


def save_tokenizer(folder: Path) -> Any:
    """Fill a folder with a tokenizer of transformers, whose `WORDS` ids are padding, end, and words w2, w3, ..."""
    import tokenizers
    import transformers

    words = {"[PAD]": 0, "[END]": 1} | {f"w{number}": number for number in range(2, WORDS)}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[END]"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokens = {"pad_token": "[PAD]", "eos_token": "[END]", "unk_token": "[END]"}
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=plain, **tokens)
    made.save_pretrained(folder)
    return made


def save_gemma_tokenizer(folder: Path) -> Any:
    """Fill a folder with Gemma's kind of tokenizer, the one of SigLIP 2, of `WORDS` ids; it ends captions in id 1."""
    import transformers

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    pairs = [("p", "h"), ("ph", "o"), ("c", "a"), ("ca", "t"), ("C", "a")]
    pieces = [*special, "▁", *string.printable[:94], *(f"<0x{byte:02X}>" for byte in range(256)), *map("".join, pairs)]
    pieces += [f"[{number}]" for number in range(len(pieces), WORDS)]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    ends = {"add_bos_token": False, "add_eos_token": True, "padding_side": "right"}
    made = transformers.GemmaTokenizer(vocab=vocab, merges=pairs, **ends)
    made.save_pretrained(folder)
    return made


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
