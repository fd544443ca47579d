"""CLIP's byte-pair tokenizer in the files of Hugging Face's `AutoTokenizer`.

The files are vocab.json, merges.txt and tokenizer_config.json. Bytes without a printable character are written as the
characters from U+0100 on, so that each token is a line of visible text. transformers pads rows with the end of text,
which no feature of a causal tower depends on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

__all__ = ["token_names", "transformers_files"]

START, END = "<|startoftext|>", "<|endoftext|>"
_END_OF_WORD = "</w>"


def token_names(alphabet: Iterable[int], visible: int, merged: Iterable[tuple[int, int]]) -> list[str]:
    """Return how each id but the special ones is written; the arguments are those of `transformers_files`."""
    single = [chr(byte) if at < visible else chr(0x100 + at - visible) for at, byte in enumerate(alphabet)]
    names = [*single, *(name + _END_OF_WORD for name in single)]
    for first, second in merged:
        names.append(names[first] + names[second])
    return names


def transformers_files(
    alphabet: Iterable[int], visible: int, merged: Iterable[tuple[int, int]], context_length: int, special: bool
) -> Mapping[str, bytes]:
    """Return the files of a vocabulary, by name.

    Args:
        alphabet: the byte of each of the ids 0-255.
        visible: how many of them, from the first, stand for themselves.
        merged: the pairs of ids whose merges have the ids from 512 on.
        context_length: number of ids in each row.
        special: take a control token that a caption spells out for what it is.
    """
    merged = list(merged)
    names = token_names(alphabet, visible, merged)
    lines = ["#version: 0.2", *(f"{names[first]} {names[second]}" for first, second in merged)]
    vocabulary = {name: at for at, name in enumerate([*names, START, END])}
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": START,
        "eos_token": END,
        "pad_token": END,
        "unk_token": END,
        "model_max_length": context_length,
        "split_special_tokens": not special,
    }
    return {
        "vocab.json": json.dumps(vocabulary, ensure_ascii=False).encode(),
        "merges.txt": ("\n".join(lines) + "\n").encode(),
        "tokenizer_config.json": (json.dumps(config, indent=2) + "\n").encode(),
    }
