"""Which tokenizers of the tokenizers library give a word of plain text the same ids wherever it stands.

Plain text is words of printable ASCII with one space between them and nothing around. A word has ids of its own if

1. no added token spans words, so that one is found in a text where it is found in a word;
2. the normalizer turns each character into printable ASCII by itself, and spaces into spaces or into marks `▁`;
3. the pre-tokenizer cuts at each space, and how it cuts a word depends on nothing but the word and the space before
   it; or it cuts nothing, and the model is a byte-pair encoding in which no token reaches past the beginning of a word,
   so that merges in two words never touch;
4. the model reads each piece by itself and leaves nothing to chance.

What you would not guess: a unigram model that sees a whole text is left out. It too would cut at the marks, but it adds
up scores along the text, and rounding may decide between two readings that are as good as equal.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal

__all__ = ["space_before_words", "steps_of"]

MARK = "▁"
"""What sentencepiece writes for a space."""
CHARACTERS = [chr(code) for code in range(0x20, 0x7F)]
"""What plain text is made of."""

_MARKS_SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
_PREPENDS_MARK = {"type": "Prepend", "prepend": MARK}
_CHARACTER_BY_CHARACTER = frozenset(
    {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "StripAccents", "Strip"}
)
"""Normalizers that change the case of plain text at most. `Strip` finds nothing to do, but before a lone word."""
_WITHOUT_SPACES = (["BertPreTokenizer"], ["Whitespace"], ["WhitespaceSplit"])
"""Pre-tokenizers that drop the spaces."""

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
    cuts, space = _cutting(steps_of(tokenizer.pre_tokenizer), marked, prefixed)
    if space is None or (space and any(one["type"] == "Strip" for one in others)):
        return None
    apart = all(map(_keeps_words_apart, others)) and not _any_added_token_spans_words(tokenizer)
    return space if apart and _reads_words_apart(tokenizer, cuts) else None


def steps_of(part: Any) -> list[dict[str, Any]]:
    """Return what a normalizer, pre-tokenizer or decoder does, step by step, as `tokenizer.json` says it."""
    return [] if part is None else _flat(json.loads(part.__getstate__()))


def _flat(state: dict[str, Any]) -> list[dict[str, Any]]:
    if state["type"] != "Sequence":
        return [state]
    inner: list[dict[str, Any]] = next((state[key] for key in _SEQUENCES if key in state), [])
    return [step for one in inner for step in _flat(one)]


def _cutting(steps: list[dict[str, Any]], marked: bool, prefixed: bool) -> tuple[bool, Space | None]:
    """Return whether pre-tokenizers cut at spaces or marks, and what `space_before_words` returns if all else allows.

    Args:
        steps: the pre-tokenizers.
        marked: spaces are marks already.
        prefixed: there is one before the first word too.
    """
    types = [one["type"] for one in steps]
    if not marked and types in _WITHOUT_SPACES:
        return True, ""
    if not marked and types == ["ByteLevel"] and steps[0]["use_regex"]:
        return True, " "
    if types[-1:] == ["Metaspace"] and steps[-1]["replacement"] == MARK and not prefixed:
        scheme = steps[-1]["prepend_scheme"]
        if types == ["Metaspace"]:
            return steps[-1]["split"], " " if scheme == "never" else ""
        return True, "" if not marked and scheme == "always" and types == ["WhitespaceSplit", "Metaspace"] else None
    if marked and (not steps or (types == ["Split"] and _finds_spaces(steps[0]))):  # there are none
        return False, "" if prefixed else " "
    return True, None


def _finds_spaces(split: dict[str, Any]) -> bool:
    return split["pattern"] == {"String": " "} and not split["invert"]


def _keeps_words_apart(step: dict[str, Any]) -> bool:
    """Tell whether a normalizer turns plain text into plain text of as many words, each character by itself."""
    if step["type"] == "Replace":
        return step["pattern"] == {"Regex": " {2,}"}  # there are none
    return step["type"] in _CHARACTER_BY_CHARACTER or (step["type"] == "Precompiled" and _keeps_ascii(step))


def _keeps_ascii(step: dict[str, Any]) -> bool:
    """Tell whether a table of sentencepiece, which is looked up grapheme by grapheme, leaves ASCII what it is."""
    from base64 import b64decode

    from tokenizers.normalizers import Precompiled

    normalize = Precompiled(b64decode(step["precompiled_charsmap"])).normalize_str
    return all(normalize(character) == character for character in CHARACTERS)


def _any_added_token_spans_words(tokenizer: Any) -> bool:
    """Tell whether an added token has a single space or mark in it, with or without something around it."""
    for token in tokenizer.get_added_tokens_decoder().values():
        sought = token.content
        if token.normalized and tokenizer.normalizer is not None:
            sought = tokenizer.normalizer.normalize_str(sought)
        if re.search(rf"(?<![ {MARK}])[ {MARK}](?![ {MARK}])", sought):
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
    by_merges_alone = not (model.ignore_merges or model.continuing_subword_prefix or model.end_of_word_suffix)
    return by_merges_alone and _marks_only_begin(tokenizer.get_vocab(with_added_tokens=False))


def _marks_only_begin(vocabulary: dict[str, int]) -> bool:
    return MARK in vocabulary and not any(MARK in token.lstrip(MARK) for token in vocabulary)
