"""Inputs that fit, and those that do not: each is told with what was found and what is allowed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from support.models.tiny_clip import KINDS, tiny
from support.peer import captions, images
from zoo_core.errors import InputError


@pytest.fixture(params=KINDS, ids=["CLIP", "CustomTextCLIP"])
def model(request: pytest.FixtureRequest) -> Any:
    return tiny(request.param)


def test_an_empty_batch_gives_no_features(model: Any) -> None:
    assert model.encode_image(torch.zeros(0, 3, 32, 32)).shape == (0, 16)
    assert model.encode_text(torch.zeros(0, 12, dtype=torch.int64)).shape == (0, 16)
    image, text = model.get_logits(torch.zeros(0, 3, 32, 32), captions(model))
    assert (image.shape, text.shape) == ((0, 2), (2, 0))


def test_rows_may_end_after_the_end_of_text(model: Any) -> None:
    text = captions(model, 2)
    used = int((text > 0).sum(dim=1).max())
    assert used < model.context_length
    torch.testing.assert_close(model.encode_text(text[:, :used]), model.encode_text(text), rtol=0, atol=1e-5)


def test_token_ids_of_32_bits_are_taken(model: Any) -> None:
    text = captions(model)
    assert torch.equal(model.encode_text(text.int()), model.encode_text(text))


def holding_itself() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


BAD_IMAGES: list[tuple[Any, str]] = [
    (
        torch.zeros(3, 32, 32),
        "expected images [B, 3, 32, 32], found torch.float32 [3, 32, 32]; add the batch dimension",
    ),
    (torch.zeros(32, 32), "expected images [B, 3, 32, 32], found torch.float32 [32, 32]"),
    (torch.zeros(1, 1, 32, 32), "expected images [B, 3, 32, 32], found torch.float32 [1, 1, 32, 32]"),
    (torch.zeros(1, 32, 32, 3), "expected images [B, 3, 32, 32], found torch.float32 [1, 32, 32, 3]"),
    (
        torch.zeros(1, 3, 32, 32, dtype=torch.int64),
        "expected preprocessed images in floating point, or raw pixels as uint8, found torch.int64",
    ),
    (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "found raw pixels torch.uint8: this model has no preprocessing"),
    (torch.zeros(1, 3, 32, 48), "expected images of 32 x 32 pixels, found torch.float32 [1, 3, 32, 48]"),
    (torch.zeros(1, 3, 32, 32).to_sparse(), "expected a dense tensor, found one of layout torch.sparse_coo; give its"),
    ("a.png", "found str: this model has no preprocessing"),
    ([], "found list: this model has no preprocessing"),
    (holding_itself(), "found list: this model has no preprocessing"),
    (None, "found NoneType: this model has no preprocessing"),
]
BAD_TEXTS: list[tuple[Any, str]] = [
    (torch.zeros(12, dtype=torch.int64), "expected int64 token ids [B, 12], found torch.int64 [12]"),
    (torch.zeros(1, 12), "expected int64 token ids [B, 12], found torch.float32 [1, 12]"),
    (torch.zeros(1, 12, dtype=torch.bool), "expected int64 token ids [B, 12], found torch.bool"),
    (torch.zeros(1, 13, dtype=torch.int64), "tokens in each row, found torch.int64 [1, 13]"),
    (torch.zeros(1, 0, dtype=torch.int64), "tokens in each row, found torch.int64 [1, 0]"),
    (torch.full((1, 12), 1024), "token ids run from 1024 to 1024; this text tower knows 0 to 1023"),
    (torch.full((1, 12), -1), "token ids run from -1 to -1"),
    (torch.zeros(1, 12, dtype=torch.int64).to_sparse(), "found one of layout torch.sparse_coo; give its .to_dense()"),
    (holding_itself(), "found list: this model has no tokenizer"),
    ("a dog", "found str: this model has no tokenizer"),
    (["a dog"], "found list: this model has no tokenizer"),
    (None, "found NoneType: this model has no tokenizer"),
]


@pytest.mark.parametrize(("image", "message"), BAD_IMAGES, ids=[message for _, message in BAD_IMAGES])
def test_an_image_that_does_not_fit_is_told(image: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        tiny().encode_image(image)
    assert message in str(caught.value)


@pytest.mark.parametrize(("text", "message"), BAD_TEXTS, ids=[message for _, message in BAD_TEXTS])
def test_a_text_that_does_not_fit_is_told(text: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        tiny().encode_text(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_indices": 4}, "the last 4 of 3 blocks do not exist; allowed: 1 to 3"),
        ({"image_indices": 0}, "the last 0 of 3 blocks do not exist"),
        ({"text_indices": [3]}, "there is no block 3; allowed: -3 to 2"),
        ({"text_indices": [-4]}, "there is no block -4"),
        ({"image_output_fmt": "NHWC"}, "image_output_fmt must be 'NCHW' or 'NLC', found 'NHWC'"),
        ({"text_output_fmt": "NCHW"}, "text_output_fmt must be 'NLC', found 'NCHW'"),
        ({"text": None, "output_logits": True}, "output_logits needs both image and text"),
    ],
    ids=str,
)
def test_options_of_intermediates_that_do_not_fit_are_told(options: dict[str, Any], message: str) -> None:
    model = tiny()
    with pytest.raises(InputError) as caught:
        model.forward_intermediates(**{"image": images(model), "text": captions(model)} | options)
    assert message in str(caught.value)


def test_tokens_come_with_the_features_that_forward_gives(model: Any) -> None:
    image, text = images(model), captions(model)
    features, patches = model.visual.forward_tokens(image)
    assert torch.equal(features, model.encode_image(image))
    assert patches.shape == (2, 4, 32)
    features, tokens = model.text.forward_tokens(text)
    torch.testing.assert_close(features, model.encode_text(text), rtol=0, atol=1e-5)
    assert tokens.shape == (2, 12, 24)
    ends = tokens[torch.arange(2), text.argmax(dim=-1)]
    torch.testing.assert_close(ends @ model.text.text_projection, features)


def test_an_image_of_any_floating_dtype_is_taken(model: Any) -> None:
    image = images(model)
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        features = model.encode_image(image.to(dtype))
        assert features.dtype == torch.float32
        torch.testing.assert_close(features, model.encode_image(image.to(dtype).float()))
