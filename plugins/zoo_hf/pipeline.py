"""Pipelines of the tokenizers library that read words apart.

Their words of plain text have the same ids in every text. Plain text is words of printable ASCII with one space between
them and nothing around. A word has ids of its own if

1. no added token spans words, so that one that a text holds is in one of its words;
2. the normalizer turns each character into printable ASCII by itself, and spaces into spaces or into marks `▁`;
3. the pre-tokenizer cuts at each space, and how it cuts a word depends on nothing but the word and the space before
   it; or it cuts nothing, and the model is a byte-pair encoding in which no token reaches past the beginning of a word,
   so that merges in two words never touch;
4. the model reads each piece by itself and leaves nothing to chance.

A unigram model that sees a whole text is left out. It too would cut at the marks, but it adds up scores along the text,
and rounding may decide between two readings that are as good as equal.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from typing import Any, Literal

__all__ = ["space_before_words", "steps_of"]

MARK = "▁"
"""The mark that sentencepiece writes for a space."""
CHARACTERS = [chr(code) for code in range(0x20, 0x7F)]
"""The characters of plain text."""

_MARKS_SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
_PREPENDS_MARK = {"type": "Prepend", "prepend": MARK}
_CHARACTER_BY_CHARACTER = frozenset(
    {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "StripAccents", "Strip"}
)
"""Normalizers that change the case of plain text at most. `Strip` has nothing to strip there."""
_SEQUENCES = ("normalizers", "pretokenizers", "decoders")

Space = Literal["", " "]


def space_before_words(tokenizer: Any) -> Space | None:
    """Return what to put before a word that is not the first, so that encoded alone it has the ids it has in a text.

    Args:
        tokenizer: of the tokenizers library.

    Returns:
        a space, or nothing where the first word is as any other; None where words may have no ids of their own.
    """
    normalizers = steps_of(tokenizer.normalizer)
    marked = normalizers[-1:] == [_MARKS_SPACES]
    prefixed = normalizers[-2:] == [_PREPENDS_MARK, _MARKS_SPACES]
    others = normalizers[: len(normalizers) - marked - prefixed]
    separation = _separation(steps_of(tokenizer.pre_tokenizer), marked, prefixed)
    if separation is None:
        return None
    cuts, space = separation
    if space and any(step["type"] == "Strip" for step in others):  # it would strip the space before a lone word
        return None
    if not all(map(_keeps_words_apart, others)) or _any_added_token_spans_words(tokenizer):
        return None
    return space if _reads_words_apart(tokenizer, cuts) else None


def steps_of(part: Any) -> list[dict[str, Any]]:
    """Return what a normalizer, pre-tokenizer or decoder does, step by step, as `tokenizer.json` says it."""
    return [] if part is None else _flat(json.loads(part.__getstate__()))


def _flat(state: dict[str, Any]) -> list[dict[str, Any]]:
    if state["type"] != "Sequence":
        return [state]
    steps: list[dict[str, Any]] = next((state[key] for key in _SEQUENCES if key in state), [])
    return [flat for step in steps for flat in _flat(step)]


def _separation(steps: list[dict[str, Any]], marked: bool, prefixed: bool) -> tuple[bool, Space] | None:
    """Return how words are separated, or None where that is not known to be one by one.

    Args:
        steps: the pre-tokenizers.
        marked: the normalizer made marks of spaces.
        prefixed: it also put one before the first word.

    Returns:
        whether the pre-tokenizers cut at spaces or marks, and what `space_before_words` returns if all else allows.
    """
    match marked, prefixed, steps:
        case False, False, [{"type": "BertPreTokenizer" | "Whitespace" | "WhitespaceSplit"}]:  # drops the spaces
            return True, ""
        case False, False, [{"type": "ByteLevel", "use_regex": True}]:  # a word begins with its space
            return True, " "
        case _, False, [{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": cuts}]:
            return cuts, " "
        case _, False, [{"type": "Metaspace", "replacement": "▁", "split": cuts}]:  # the first word has a mark too
            return cuts, ""
        case False, False, [
            {"type": "WhitespaceSplit"},
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
        ]:
            return True, ""
        # of the spaces, all of them marks, none is left to split at
        case True, _, [] | [{"type": "Split", "pattern": {"String": " "}, "invert": False}]:
            return False, "" if prefixed else " "
        case _:
            return None


def _keeps_words_apart(step: dict[str, Any]) -> bool:
    """Tell whether a normalizer turns plain text into plain text of as many words, each character by itself."""
    match step:
        case {"type": "Replace", "pattern": pattern}:
            return pattern == {"Regex": " {2,}"}  # which plain text does not have
        case {"type": "Precompiled", "precompiled_charsmap": table}:
            # a table of sentencepiece is looked up grapheme by grapheme
            from tokenizers.normalizers import Precompiled

            normalize = Precompiled(b64decode(table)).normalize_str
            return all(normalize(character) == character for character in CHARACTERS)
        case _:
            return step["type"] in _CHARACTER_BY_CHARACTER


def _any_added_token_spans_words(tokenizer: Any) -> bool:
    """Tell whether an added token has a single space or mark in it, with or without something around it."""
    for token in tokenizer.get_added_tokens_decoder().values():
        content = token.content
        if token.normalized and tokenizer.normalizer is not None:
            content = tokenizer.normalizer.normalize_str(content)
        if re.search(rf"(?<![ {MARK}])[ {MARK}](?![ {MARK}])", content):
            return True
    return False


def _reads_words_apart(tokenizer: Any, cuts: bool) -> bool:
    """Tell whether the model reads words apart: whole texts, or what a pre-tokenizer cut."""
    model = tokenizer.model
    kind = type(model).__name__
    if kind in ("WordPiece", "WordLevel"):
        return cuts
    if kind == "Unigram":
        return cuts and getattr(model, "alpha", None) is None and getattr(model, "nbest_size", None) is None
    if kind != "BPE" or model.dropout:
        return False
    if cuts:
        return True
    if model.ignore_merges or model.continuing_subword_prefix or model.end_of_word_suffix:
        return False
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    return MARK in vocabulary and not any(MARK in token.lstrip(MARK) for token in vocabulary)
