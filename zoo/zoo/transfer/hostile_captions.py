"""Captions in which tokenizers differ, compared when a model is converted.

Whoever reads a tokenizer differently differs in one of these: in case, marks, accents, spaces, or what has no letters.
The last two groups are apart, as most tokenizers of other libraries mend nothing and take control tokens for what they
are, whatever a model does here.
"""

# ruff: noqa: RUF001
from __future__ import annotations

__all__ = ["DAMAGED", "PLAIN", "SPELLED"]

PLAIN = (
    "a photo of a cat, and 2 dogs",
    "This is a photo of a CAT.",
    "Two dogs, in the snow!",
    "l'été: mange, it's WE'LL & they've",
    "snake_case (in brackets) [1/2] #4 50% ~A+B-C=",
    "Zwei Hünde & ein 猫!",
    "caf\u00e9 Ångström",
    "cafe\u0301 A\u030angstro\u0308m",
    "  runs   of    spaces  ",
    "lines\nand\ttabs\r\n\r\nbetween",
    "犬と猫の写真 强的狗 개",
    "собака щенок",
    "🐶 👍🏽 👨\u200d👩\u200d👧 🇩🇪",
    "1234567890 3.14",
    "a",
    "",
    " ",
)
"""What captions hold."""

SPELLED = (
    "a </s> cat </s>",
    "<s>dog</s><pad> <unk>",
    "a cat <eos> and <bos> dog",
    "<|startoftext|>a cat<|endoftext|> and a dog",
    "<start_of_text> a cat <end_of_text>",
    "[CLS] a cat [SEP] [PAD] [MASK] [UNK]",
    "<mask> <extra_id_0>",
)
"""Control tokens, spelled out."""

DAMAGED = (
    "&amp;lt;b&amp;gt; cats &amp; dogs &#128054;",
    "it\u2019s a \u201cquoted\u201d dog\u2026",
    "schÃ¶n Ã©tÃ©",
    "ＦＵＬＬ\u3000ＷＩＤＴＨ ﬁsh",
)
"""What mending changes: entities, curly quotes, mojibake, wide letters."""
