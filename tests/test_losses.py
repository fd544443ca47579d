"""The losses against open_clip's, and both against their formulas written out in float64."""

from __future__ import annotations

import math
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import SigLipLoss as PeerSigLipLoss
from torch import Tensor

import zoo
from zoo import ClipLoss, SigLipLoss
from zoo_core.errors import ConfigError, InputError

PEERS = {"contrastive": open_clip.ClipLoss, "sigmoid": PeerSigLipLoss}
SHAPES = [(), (1,)]


def features(count: int, width: int = 8, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(count)
    drawn = torch.randn(2, count, width, generator=generator, dtype=torch.float64)
    return [side.to(dtype).requires_grad_() for side in F.normalize(drawn, dim=-1)]


def scale_and_bias(shape: tuple[int, ...], bias: float | None, dtype: torch.dtype = torch.float32) -> list[Any]:
    scale = torch.full(shape, 14.0, dtype=dtype).requires_grad_()
    return [scale, None if bias is None else torch.full(shape, bias, dtype=dtype).requires_grad_()]


def contrastive(images: Tensor, texts: Tensor, scale: float, bias: float) -> float:
    """Return the mean of -log p(own text | image) and -log p(own image | text), pair by pair."""
    count = len(images)
    logits = [[scale * float(image @ text) + bias for text in texts] for image in images]
    rows = [math.log(sum(map(math.exp, row))) - row[i] for i, row in enumerate(logits)]
    columns = [math.log(sum(math.exp(row[j]) for row in logits)) - logits[j][j] for j in range(count)]
    return (sum(rows) + sum(columns)) / (2 * count)


def sigmoid(images: Tensor, texts: Tensor, scale: float, bias: float) -> float:
    """Return -log p(pair or no pair) summed over all pairs, divided by the number of images."""
    total = 0.0
    for i, image in enumerate(images):
        for j, text in enumerate(texts):
            logit = scale * float(image @ text) + bias
            total += math.log1p(math.exp(-logit if i == j else logit))
    return total / len(images)


FORMULAS = {"contrastive": contrastive, "sigmoid": sigmoid}


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("shape", SHAPES, ids=["scalar", "one-element"])
@pytest.mark.parametrize("bias", [None, -10.0], ids=["no-bias", "bias"])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_value_and_gradients_are_the_peers(name: str, shape: tuple[int, ...], bias: float | None, count: int) -> None:
    results: list[list[Any]] = []
    for loss in (zoo.loss(name), PEERS[name]()):
        inputs = [*features(count), *scale_and_bias(shape, bias)]
        value = loss(*inputs)
        value.backward()
        results.append([value, *(one.grad for one in inputs if one is not None)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("bias", [None, -2.5], ids=["no-bias", "bias"])
def test_value_is_that_of_the_formula_in_float64(name: str, bias: float | None) -> None:
    double = [*features(6, dtype=torch.float64), *scale_and_bias((), bias, torch.float64)]
    expected = FORMULAS[name](double[0].detach(), double[1].detach(), 14.0, bias or 0.0)
    assert zoo.loss(name)(*double).item() == pytest.approx(expected, abs=1e-12)
    single = [one if one is None else one.detach().float() for one in double]
    assert zoo.loss(name)(*single).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", PEERS)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    inputs = (*features(3, width=4, dtype=torch.float64), *scale_and_bias((), -1.0, torch.float64))
    assert torch.autograd.gradcheck(zoo.loss(name), inputs)


@pytest.mark.parametrize("name", PEERS)
def test_output_dict_names_the_loss_as_the_peer_does(name: str) -> None:
    inputs = [*features(3), *scale_and_bias((), -1.0)]
    ours: Any = zoo.loss(name)
    found, expected = (loss(*inputs, output_dict=True) for loss in (ours, PEERS[name]()))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_contrastive_loss_ignores_a_bias_and_the_sigmoid_loss_feels_it() -> None:
    images, texts = features(4)
    scale, bias = scale_and_bias((), -3.0)
    torch.testing.assert_close(ClipLoss()(images, texts, scale, bias), ClipLoss()(images, texts, scale))
    assert SigLipLoss()(images, texts, scale, bias) != SigLipLoss()(images, texts, scale)


def test_a_loss_keeps_the_dtype_of_the_features() -> None:
    for name in PEERS:
        images, texts = features(4, dtype=torch.bfloat16)
        assert zoo.loss(name)(images, texts, torch.tensor(14.0)).dtype == torch.bfloat16


def test_public_classes_are_what_the_names_build() -> None:
    assert type(zoo.loss("contrastive")) is ClipLoss
    assert type(zoo.loss("sigmoid")) is SigLipLoss


@pytest.mark.parametrize(
    ("images", "texts"),
    [((4, 8), (3, 8)), ((4, 8), (4, 6)), ((8,), (8,)), ((1, 4, 8), (1, 4, 8))],
    ids=["other-count", "other-width", "one-dimension", "three-dimensions"],
)
@pytest.mark.parametrize("name", PEERS)
def test_features_that_are_no_pairs_are_refused(name: str, images: tuple[int, ...], texts: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected image and text features of one shape \[B, D\], found") as caught:
        zoo.loss(name)(torch.zeros(images), torch.zeros(texts), torch.tensor(1.0))
    assert str(list(images)) in str(caught.value)
    assert str(list(texts)) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("contrastve", {}, "did you mean 'contrastive'"),
        ("hinge", {}, "allowed: contrastive, sigmoid"),
        ("contrastive", {"temperature": 2}, "temperature: unknown key"),
    ],
)
def test_a_wrong_name_or_option_is_answered_with_the_right_one(name: str, options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        zoo.loss(name, **options)
