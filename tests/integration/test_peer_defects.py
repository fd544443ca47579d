"""Defects of the field's libraries that no other file of tests keeps out: what is silent, endless or obscure there.

Each row is an input that one of them takes in silence, never answers or answers in riddles, with what is said here.
"""

from __future__ import annotations

import io
import logging
import os
import random
import string
import struct
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiktoken
import torch
from PIL import Image

import zoo
from support.models.tiny_configs import TINY, changed
from support.tokenizers.tiny_tokenizers import ENCODING, MAKERS, ours
from zoo.inference.profiling import profile_model
from zoo_core.errors import ZooError
from zoo_core.text.tokenizer import Tokenizer
from zoo_tiktoken.config import TiktokenConfig
from zoo_tiktoken.tokenizer import TiktokenTokenizer

# Long texts are cut as the field does it; what is said of that is tested in test_overflow.py.
pytestmark = pytest.mark.filterwarnings("ignore::zoo_core.errors.TruncatedTextWarning")

RESNET = {"tower": "modified-resnet", "image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8}


@pytest.fixture(scope="module")
def model() -> Any:
    return zoo.build(TINY)


# Arguments

ARGUMENTS: dict[str, tuple[Callable[[], object], str]] = {
    "a tokenizer of a misspelt name": (
        lambda: zoo.tokenizer("ViT-B/16-SigLIPP"),
        "unknown architecture 'ViT-B/16-SigLIPP', did you mean 'ViT-B-16-SigLIP'?",
    ),
    "no text section": (
        lambda: zoo.config({key: value for key, value in TINY.items() if key != "text"}),
        "text: required key is missing",
    ),
    "no vision section": (
        lambda: zoo.config({key: value for key, value in TINY.items() if key != "vision"}),
        "vision: required key is missing",
    ),
    "no vision heads": (
        lambda: zoo.config(changed(vision={"head_width": 0})),
        "vision.head_width: must be at least 1, found 0",
    ),
    "no text heads": (lambda: zoo.config(changed(text={"heads": 0})), "text.heads: must be at least 1, found 0"),
    "patch dropout of a residual network": (
        lambda: zoo.config(changed(vision={}) | {"vision": RESNET | {"patch_dropout": 0.5}}),
        "vision.patch_dropout: unknown key",
    ),
    "LayerScale of a residual network": (
        lambda: zoo.config(TINY | {"vision": RESNET | {"ls_init_value": 1e-4}}),
        "vision.ls_init_value: unknown key",
    ),
    "five stages of a residual network": (
        lambda: zoo.config(TINY | {"vision": RESNET | {"layers": [1] * 5}}),
        "vision.layers: expected four depths such as [3, 4, 6, 3], found [1, 1, 1, 1, 1]",
    ),
    "a projection that there is not": (
        lambda: zoo.config("roberta-vit-b32", ["text.proj=mpl"]),
        "text.proj: 'mpl' is not known, did you mean 'mlp'?",
    ),
    "a precision in words": (
        lambda: zoo.build(TINY, dtype="float16"),  # type: ignore[arg-type]
        "dtype must be a floating-point torch.dtype of 16 bits or more, such as torch.bfloat16, found 'float16'",
    ),
    "a section in place of an override": (
        lambda: zoo.build("vit-b16", overrides=[{"vision": {"layers": 1}}]),  # type: ignore[list-item]
        "an override is a string such as 'vision.layers=2', found a mapping",
    ),
    "weights of another activation": (
        lambda: zoo.build("ViT-B-32", pretrained="openai"),
        "has no pretrained tag 'openai'; 'vit-b32-quickgelu' has these weights",
    ),
    "a loss by part of a name": (lambda: zoo.loss("my-coca-free-vit"), "unknown loss 'my-coca-free-vit'"),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_what_the_peers_take_in_silence_is_refused(case: str) -> None:
    call, message = ARGUMENTS[case]
    with pytest.raises(ZooError) as caught:
        call()
    assert message in str(caught.value)


def test_a_tokenizer_is_the_architectures_own_in_every_spelling() -> None:
    """The peer takes CLIP's for `ViT-B/16-SigLIP`, and says nothing."""
    for spelling in ("ViT-B/16-SigLIP", "ViT-B-16-SigLIP", "vit-b16-siglip"):
        found: Any = zoo.tokenizer(spelling)
        assert (type(found).__name__, found.config.name) == ("HfTokenizer", "timm/ViT-B-16-SigLIP")


def test_a_residual_network_takes_a_size_of_two_numbers() -> None:
    built = zoo.build(TINY | {"vision": RESNET | {"image_size": [64, 32]}})
    assert built.encode_image(torch.zeros(1, 3, 64, 32)).shape == (1, 32)


def test_a_logit_bias_that_a_state_dict_lacks_is_missed_and_never_zero() -> None:
    biased = zoo.build(changed(init_logit_bias=-10))
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "logit_bias"'):
        biased.load_state_dict(zoo.build(TINY).state_dict())
    assert biased.logit_bias is not None and biased.logit_bias.item() == -10


def test_configs_of_one_name_share_nothing() -> None:
    first: Any = zoo.config("roberta-vit-b32")
    first.text.config["hidden_size"] = 1
    second: Any = zoo.config("roberta-vit-b32")
    assert second.text.config["hidden_size"] == 768


def process_state() -> dict[str, object]:
    """Return what belongs to the process."""
    return {
        "environment": dict(os.environ),
        "warning filters": list(warnings.filters),
        "log level": logging.getLogger().level,
        "log handlers": list(logging.getLogger().handlers),
        "python's chance": random.getstate(),
        "numpy's chance": str(np.random.get_state()),
        "default dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "image limit": Image.MAX_IMAGE_PIXELS,
        "path": list(sys.path),
    }


def test_building_and_using_a_model_changes_nothing_of_the_process() -> None:
    """The peer switches the parallelism of all tokenizers off in the environment."""
    before = process_state()
    built = zoo.build(changed(embed_dim=16))
    image, text = built.get_logits([Image.new("RGB", (40, 30))], ["a dog", "a cat"])
    zoo.loss("contrastive")(image[:, :1], text[:1], torch.tensor(1.0))
    zoo.preprocess(built, train=True)(Image.new("RGB", (40, 30)))
    assert process_state() == before


# Tensors


def ids(*rows: list[int]) -> torch.Tensor:
    return torch.tensor([row + [0] * (16 - len(row)) for row in rows])


START, END = 598, 599
TENSORS: dict[str, tuple[str, Any, str]] = {
    "tensors of several sizes": (
        "encode_image",
        [torch.zeros(3, 32, 32), torch.zeros(3, 16, 16)],
        "expected image tensors of one shape, but images[0] is [3, 32, 32] and images[1] is [3, 16, 16]",
    ),
    "a tensor among paths": ("encode_image", [torch.zeros(3, 32, 32), "a.png"], "images[0]: "),
    "complex pixels": (
        "encode_image",
        torch.zeros(1, 3, 32, 32, dtype=torch.complex64),
        "in floating point, or raw pixels as uint8, found torch.complex64",
    ),
    "no end of text": (
        "encode_text",
        ids([START, 5, 6, END], [START, 5, 6]),
        "the feature is read at the end of text, id 599, but the largest id in row 1 of the ids is 598",
    ),
    "padding alone": ("encode_text", ids([START, END], [0]), "but the largest id in row 1 of the ids is 0"),
    "ids in a list": ("encode_text", [[START, 5, END]], "texts[0]: expected a string, found list"),
    "an array of ids": ("encode_text", np.zeros((2, 16), np.int64), "found ndarray"),
    "a set of strings": ("encode_text", {"a", "b"}, "expected a string or a sequence of strings, found set"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_an_input_that_would_give_a_feature_of_something_else_is_refused(case: str, model: Any) -> None:
    method, value, message = TENSORS[case]
    with pytest.raises(ZooError) as caught:
        getattr(model, method)(value)
    assert message in str(caught.value)


def test_an_id_above_the_tokenizers_is_not_taken_for_the_end() -> None:
    """The embedding may have more rows than the tokenizer ids; the largest id would then be read as the end."""
    wide = zoo.build(changed(text={"vocab_size": 700}))
    assert wide.encode_text(ids([START, 5, END])).shape == (1, 32)
    with pytest.raises(ZooError, match="the largest id in row 0 of the ids is 650"):
        wide.encode_text(ids([START, 650, END]))


def test_strides_and_precision_of_images_change_no_feature(model: Any) -> None:
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = model.encode_image(image)
    strided = image.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert not strided.is_contiguous()
    for same in (strided, image.double()):
        torch.testing.assert_close(model.encode_image(same), expected)


def test_a_model_that_pools_at_any_end_of_text_can_be_profiled() -> None:
    built = zoo.build(
        changed(text={"pool_type": "eos", "eos_id": 2}) | {"tokenizer": {"type": "hf", "name": "a", "vocab_size": 600}},
    )
    sizes = {"image_size": (32, 32), "context_length": 16, "vocab_size": 600}
    assert profile_model(built, **sizes, batch_size=1, steps=1, device="cpu").towers["text"].macs > 0


# Strings


def tokenizer_of(kind: str, folder: Path, cleaning: Any) -> Tokenizer:
    if kind == "clip-bpe":
        return zoo.tokenizer(changed(tokenizer={"cleaning": cleaning}))
    if kind == "tiktoken":
        config = TiktokenConfig(encoding="defects", vocab_size=ENCODING.n_vocab + 3, cleaning=cleaning)
        return TiktokenTokenizer(config, context_length=24)
    return ours(MAKERS[kind](folder / kind), cleaning=cleaning)


KINDS = [
    *(("clip-bpe", cleaning) for cleaning in ("lower", "whitespace", "canonicalize")),
    *((kind, cleaning) for kind in (*MAKERS, "tiktoken") for cleaning in ("whitespace", "none")),
]


@pytest.fixture(params=KINDS, ids=" ".join)
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tokenizer:
    tiktoken.list_encoding_names()  # finds the constructors, among which ours then stands
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "defects", ENCODING)
    monkeypatch.setitem(tiktoken.registry.ENCODING_CONSTRUCTORS, "defects", dict)
    kind, cleaning = request.param
    return tokenizer_of(kind, tmp_path, cleaning)


WORD = "".join(random.Random(0).choices(string.ascii_lowercase, k=100_000))
STRANGE = {
    "a surrogate alone": "a \ud800 b",
    "a surrogate in a word": "ab\udfffcd",
    "surrogates in the wrong order": "\udc00\ud800",
    "NUL": "a\0b",
    "100 kB of one word": WORD,
    "100 kB of one letter": "a" * 100_000,
    "100 kB of one accented letter": "é" * 50_000,
    "100 kB of entities": "&amp;" * 20_000,
    "100 kB of half entities": "&#x" * 33_000,
    "100 kB of mojibake": "Ã" * 50_000,
    "100 kB of space": " " * 100_000,
    "nothing": "",
}


def test_any_string_is_tokenized_soon(tokenizer: Tokenizer) -> None:
    """The peer needs more than a minute for the one word, and transformers raises a riddle for the surrogates."""
    tokenizer("a")  # the vocabulary is loaded
    for name, text in STRANGE.items():
        start = time.process_time()
        (row,) = tokenizer(text)
        assert time.process_time() - start < 3, name
        assert row.min() >= 0 and row.max() < tokenizer.vocab_size, name


def test_time_grows_with_the_length_of_a_word(tokenizer: Tokenizer) -> None:
    def seconds(letters: int) -> float:
        found = []
        for _ in range(3):
            start = time.process_time()
            tokenizer(WORD[:letters])
            found.append(time.process_time() - start)
        return min(found)

    seconds(100)
    assert seconds(80_000) < 16 * seconds(10_000) + 0.05  # 8 times the letters; a square would be 64


def test_half_a_pair_becomes_the_replacement_character(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("a \ud800 b") == tokenizer.encode("a \ufffd b")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (None, "expected a string or a sequence of strings, found NoneType"),
        (b"a dog", "expected a string or a sequence of strings, found bytes"),
        ([b"a dog"], "texts[0]: expected a string, found bytes"),
        (["a", None], "texts[1]: expected a string, found NoneType"),
        ([float("nan")], "texts[0]: expected a string, found float (nan)"),
        ([["a"]], "texts[0]: expected a string, found list"),
        (7, "expected a string or a sequence of strings, found int"),
    ],
    ids=str,
)
def test_what_is_no_string_is_refused_by_every_tokenizer(texts: Any, message: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(ZooError) as caught:
        tokenizer(texts)
    assert message in str(caught.value)


# Files


def png_with(kind: bytes, head: bytes) -> bytes:
    """Return a small PNG file with a chunk that unpacks to 64 MiB."""
    packer = zlib.compressobj(9)
    data = kind + head + b"".join(packer.compress(bytes(2**20)) for _ in range(64)) + packer.flush()
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()[:33] + chunk + file.getvalue()[33:]


@pytest.mark.parametrize(
    ("kind", "head"), [(b"zTXt", b"k\0\0"), (b"iTXt", b"k\0\1\0\0\0"), (b"iCCP", b"k\0\0")], ids=["text", "UTF", "ICC"]
)
def test_a_chunk_that_unpacks_to_a_hundred_times_its_size_is_refused(
    kind: bytes, head: bytes, tmp_path: Path, model: Any
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_with(kind, head))
    assert path.stat().st_size < 100_000
    with pytest.raises(ZooError, match="bomb.png: cannot be decoded: Decompressed data too large"):
        model.encode_image(path)


def test_what_follows_a_picture_in_its_file_is_left_alone(tmp_path: Path, model: Any) -> None:
    picture, path = Image.new("RGB", (40, 40), "red"), tmp_path / "picture.jpg"
    picture.save(path)
    expected = model.encode_image(path)
    path.write_bytes(path.read_bytes() + b"PK\3\4" + bytes(1000))
    assert torch.equal(model.encode_image(path), expected)
