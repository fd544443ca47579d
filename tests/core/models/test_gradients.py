"""Which inputs record gradients: tensors always, pictures and strings where a model is trained."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import zoo
from support.models.families import FAMILIES, model_of, pictures

NAME = "ViT CLIP"
CAPTIONS = ["a cat", "two dogs"]
PICTURE = Image.new("RGB", (40, 50), (200, 30, 90))
RAW = torch.zeros(3, 40, 50, dtype=torch.uint8)


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_and_strings_are_arrays_at_once_in_evaluation_mode(family: str) -> None:
    model = model_of(family)
    for found in (
        model.encode_image(PICTURE),
        model.encode_image([PICTURE, PICTURE], normalize=True),
        model.encode_image(RAW),
        model.encode_text(CAPTIONS),
        model.encode_text("a cat", normalize=True),
        model.similarity(PICTURE, CAPTIONS),
        model.probabilities(RAW, CAPTIONS),
        *model.get_logits(PICTURE, CAPTIONS),
    ):
        assert found.grad_fn is None and found.numpy().shape == found.shape
        assert not found.is_inference()  # what is trained on features may keep them
    with torch.no_grad():
        expected = model.encode_text(CAPTIONS)
    assert torch.equal(model.encode_text(CAPTIONS), expected)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_memory_does_not_grow_with_what_is_kept_of_pictures_and_strings() -> None:
    model = model_of(NAME)
    alive: list[weakref.ref[Tensor]] = []
    for block in model.text.transformer.resblocks:
        block.register_forward_hook(lambda module, given, output: alive.append(weakref.ref(output)))
    kept = [model.encode_text(CAPTIONS) for _ in range(3)]
    assert len(kept) == 3 and alive and not any(one() is not None for one in alive)


def inputs_that_record(model: Any) -> dict[str, Tensor]:
    """Return what gradients of a built model are recorded of."""
    image, ids = pictures(model), model.tokenizer(CAPTIONS)
    return {
        "image": model.encode_image(image),
        "listed": model.encode_image(list(image)),
        "text": model.encode_text(ids),
        "similarity": model.similarity(image, CAPTIONS),
        "logits": model.get_logits(PICTURE, ids)[0],
        "probabilities": model.probabilities(image, ids),
        "forward": model(PICTURE, CAPTIONS)[0],
        "forward, text": model(image, CAPTIONS)[1],
        "one of the towers": model(text=CAPTIONS)[1],
    }


@pytest.mark.parametrize("name", inputs_that_record(model_of(NAME)))
def test_tensors_and_whatever_forward_is_given_record_gradients(name: str) -> None:
    model = model_of(NAME)
    inputs_that_record(model)[name].sum().backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_forward_records_both_sides_of_a_model_in_evaluation_mode() -> None:
    model = model_of(NAME)
    image, text, scale = model([PICTURE, RAW], CAPTIONS)
    (scale * image @ text.T).sum().backward()
    assert all(tower.transformer.resblocks[0].ln_1.weight.grad is not None for tower in (model.visual, model.text))
    with torch.no_grad():
        assert torch.equal(model([PICTURE, RAW], CAPTIONS)[1], text)


def test_strings_and_pictures_record_gradients_in_training_mode() -> None:
    model = model_of(NAME).train()
    assert model.encode_text(CAPTIONS).requires_grad and model.encode_image(PICTURE).requires_grad
    model.visual.eval()
    assert model.encode_text(CAPTIONS).requires_grad and not model.encode_image(PICTURE).requires_grad


def test_strings_record_gradients_where_somebody_chose_what_is_trained() -> None:
    model = model_of(NAME)
    model.lock_image_tower()
    assert model.encode_text(CAPTIONS).requires_grad and not model.encode_image(PICTURE).requires_grad
    assert model.probabilities(PICTURE, CAPTIONS).requires_grad
    model.requires_grad_(False)
    assert not model.encode_text(CAPTIONS).requires_grad


def test_patches_record_gradients_as_tensors_do() -> None:
    model = model_of("timm NaFlex")
    patches = zoo.preprocess(
        zoo.build(FAMILIES["timm NaFlex"].architecture | {"preprocess": {"type": "naflex", "patch_size": 8}})
    )
    batch = patches.batch([PICTURE])
    assert model.encode_image(batch).requires_grad
