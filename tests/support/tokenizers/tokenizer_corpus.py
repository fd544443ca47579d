"""Texts on which a tokenizer is held against its peer: what captions hold, and what the web does to them.

Deterministic: the same `seed` and `share` give the same texts. `share=1` gives more than 60,000 of them.
"""

# ruff: noqa: RUF001
from __future__ import annotations

import html.entities
import random
import string
from collections.abc import Iterator

from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

SENTENCES = (
    "Ein Foto von einer Straße in München, größer als üblich.",
    "Une photo d'une œuvre d'été à Noël, ça coûte 12€.",
    "Una foto de un niño pequeño jugando al fútbol en España.",
    "Uma fotografia de um cão não tão feliz às três da manhã.",
    "Фотография большой собаки на зелёной траве.",
    "Φωτογραφία ενός σκύλου ΟΔΥΣΣΕΥΣ στην Αθήνα.",
    "一张狗在草地上的照片。",
    "犬が公園で走っている写真です。ﾊﾝｶｸ カタカナ",
    "공원에서 뛰고 있는 개의 사진",
    "صورة كلب في الحديقة",
    "תמונה של כלב בפארק",
    "बगीचे में एक कुत्ते की तस्वीर",
    "ภาพถ่ายของสุนัขในสวน",
    "Ảnh chụp một con chó trong công viên ở Việt Nam",
    "Zdjęcie psa w łazience, źdźbło trawy",
    "İstanbul'da bir köpeğin fotoğrafı IĞDIR",
    "Fényképek egy űrhajóról, őszintén",
    "Fotografie psa v příšerně žluťoučkém koni",
    "ছবিতে একটি কুকুর",
    "ಉದ್ಯಾನದಲ್ಲಿ ನಾಯಿ",
    "நாய் புகைப்படம்",
    "საქართველო ძაღლი",
    "Հայաստան շուն",
    "Ljósmynd af hundi á Íslandi þorn",
    "it\u2019s a “quoted” dog… — really? \u2018yes\u2019",
    "naïve café résumé Ångström ﬁsh ﬂag ﬃ",
    "ＦＵＬＬ\u3000ＷＩＤＴＨ ｔｅｘｔ １２３",
    "a photo of a 🐶 dog 👨\u200d👩\u200d👧\u200d👦 family 🏳️\u200d🌈 flag 🇩🇪 👍🏽",
    "math ∑∫√≠ ½ ¼ ² ³ Ⅷ ⅷ ① ㎏ ℃ №",
    "zero\u200bwidth\u200djoiner\u200cx\ufeffbom soft\u00adhyphen",
    "combining e\u0301 n\u0302 \u0345 \u1fb3 \u1fc3 \u2126 \u212a \u212b",
    "\u017f '\u017f 'S 'T 'LL 'Ve 'RE 'M 'D",
)
FRAGMENTS = " ".join(SENTENCES).split(" ")
CLASSES = list(IMAGENET_CLASSNAMES)
TEMPLATES = list(OPENAI_IMAGENET_TEMPLATES)
EMOJI = [chr(c) for low, high in ((0x1F300, 0x1F64F), (0x1F680, 0x1F6FF), (0x2600, 0x27BF)) for c in range(low, high)]
SPECIALS = (
    "<start_of_text>",
    "<end_of_text>",
    "<END_OF_TEXT>",
    "<\u017ftart_of_text>",
    "<|endoftext|>",
    "</w>",
)
ENDINGS = (
    "",
    "",
    ", 4K HDR!!",
    " & more",
    " -- it's John's 2nd #1 photo (c) 2021",
    " I'LL we've they're don't",
)


def caption(rng: random.Random) -> str:
    """Return a prompt of CLIP's ImageNet evaluation about one or two of its classes."""
    second = f" and {rng.choice(CLASSES)}" if rng.random() < 0.4 else ""
    return rng.choice(TEMPLATES)(rng.choice(CLASSES)) + second


def scene(rng: random.Random) -> str:
    """Return a sentence of the length and wording of a COCO caption."""
    number = rng.choice(("A", "Two", "Several", "A group of", "A man with a", "A woman holding the", "This"))
    verb = rng.choice(("sitting on", "standing next to", "parked in front of", "lying under", "looking at"))
    place = rng.choice(("a wooden table", "the street", "a grassy field", "a kitchen counter", "the beach at sunset"))
    return f"{number} {rng.choice(CLASSES)} {verb} {rng.choice(('a', 'the'))} {rng.choice(CLASSES)} on {place}."


def families(seed: int = 0, share: float = 1.0) -> dict[str, list[str]]:
    """Return the texts by what is odd about them."""
    rng = random.Random(seed)
    makers = {
        "captions": (20_000, lambda: caption(rng) + rng.choice(ENDINGS)),
        "multilingual": (5_000, lambda: _respelled(rng, " ".join(rng.sample(FRAGMENTS, rng.randint(1, 12))))),
        "emoji": (
            3_000,
            lambda: caption(rng) + "".join(rng.choices([*EMOJI, "\u200d", "\ufe0f"], k=rng.randint(1, 8))),
        ),
        "entities": (5_500, lambda: _with_entities(rng)),
        "mojibake": (4_000, lambda: _misread(rng, " ".join(rng.sample(FRAGMENTS, rng.randint(1, 8))))),
        "long": (500, lambda: " ".join(rng.choices(FRAGMENTS + CLASSES, k=rng.randint(60, 400)))),
        "control characters": (5_000, lambda: _characters(rng, CONTROLS, 20)),
        "any code points": (8_000, lambda: "".join(_code_point(rng) for _ in range(rng.randint(1, 24)))),
        "printable ASCII": (8_000, lambda: _characters(rng, string.printable, 60)),
        "letters": (5_000, lambda: _characters(rng, "abcdeST'", 40)),
        "special tokens": (
            1_000,
            lambda: "".join(rng.choices((*SPECIALS, "a dog", " ", "!", "cat", "'s"), k=5)),
        ),
    }
    texts = {name: [make() for _ in range(round(count * share))] for name, (count, make) in makers.items()}
    texts["edges"] = list(_edges())
    return texts


CONTROLS = "".join(map(chr, range(0xA1))) + " " * 20 + "\u200b\u200e\u2028\u3000\ufeff\ufffd\ufffc\u206a\ud800\udc00"


def _edges() -> Iterator[str]:
    yield from (
        "",
        " ",
        "\n",
        "\t \r\n",
        "\u3000",
        "\u00a0",
        "\u2028\u2029\x85",
        "\x00",
        "\x1b[31mred\x1b[0m dog",
    )
    yield from (
        "black & white",
        "AT&T",
        "&",
        "& ",
        " &",
        "&amp",
        "a &\tb",
        "a &\nb",
        "&&& lt;",
        "&#38;#60;",
        "& lt;",
    )
    yield from ("a" * length for length in (63, 64, 65, 76, 77, 1_000, 3_000))
    yield from (
        "supercalifragilistic" * 50,
        "!" * 300,
        "1234567890" * 30,
        "ab" * 400,
        "aaab" * 300,
        "\u0301" * 500,
    )
    yield from (
        "a " * 74 + "b",
        "a " * 75 + "b",
        "a " * 76 + "b",
        "_snake_case_",
        "it`s",
        "\ud800",
        "\ud83d\udc36",
    )
    yield from (change(text) for text in SENTENCES for change in (str, str.upper, str.lower, str.title))


def _characters(rng: random.Random, alphabet: str, longest: int) -> str:
    return "".join(rng.choices(alphabet, k=rng.randint(1, longest)))


def _code_point(rng: random.Random) -> str:
    return chr(rng.randint(*rng.choice(((0, 0x2FF), (0, 0xFFFF), (0x10000, 0x1FFFF), (0xE0000, 0x10FFFF)))))


def _respelled(rng: random.Random, text: str) -> str:
    return rng.choice((str, str, str.upper, str.lower, str.title, lambda same: same[::-1]))(text)


def _misread(rng: random.Random, text: str) -> str:
    encoding = rng.choice(("latin-1", "cp1252", "cp1251", "macroman", "cp437"))
    misread = text.encode().decode(encoding, errors="replace")
    return misread.encode().decode("latin-1") if rng.random() < 0.2 else misread


def _with_entities(rng: random.Random) -> str:
    one, other = rng.sample(ENTITIES, 2)
    tag = rng.choice(("<b>", "", "</w>", "<end_of_text", "&", "& "))
    number, hexadecimal = rng.randint(0, 0x11FFFF), rng.randint(0, 0x3000)
    return f"{rng.choice(CLASSES)} &{one} x&amp;{other}y {tag} &#{number}; &#x{hexadecimal:x} &amp;amp;lt;"


ENTITIES = sorted(html.entities.html5)
