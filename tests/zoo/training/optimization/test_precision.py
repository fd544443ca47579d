"""Gradients are scaled, clipped and skipped as torch's own tools do it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import zoo
from support.models.families import model_of, pictures, words
from zoo.training.gradients.clip import clip_gradients
from zoo.training.gradients.step import contrastive_step
from zoo.training.optimization.loss_scaler import LossScaler
from zoo.training.optimization.optimizer import weights_that_count
from zoo_core.errors import CheckpointError


def with_gradients(loss_scale: float = 1.0, precision: Any = "fp32") -> Any:
    model = model_of("ViT CLIP").train()
    inputs = {"image": pictures(model, 4), "text": words(model, 4)}
    contrastive_step(model, zoo.loss("contrastive"), inputs, loss_scale=loss_scale, precision=precision)
    return model


def gradients(model: Any) -> list[torch.Tensor]:
    return [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("clip", [0.5, 1e6])
def test_gradients_are_clipped_as_torch_does(clip: float) -> None:
    ours, theirs = with_gradients(), with_gradients()
    norm = clip_gradients(ours, clip)
    assert norm == torch.nn.utils.clip_grad_norm_(theirs.parameters(), clip) and norm > 1
    for one, other in zip(gradients(ours), gradients(theirs), strict=True):
        assert torch.equal(one, other)


def test_the_loss_scale_is_taken_out_before_anything_is_measured() -> None:
    scaled, plain = with_gradients(2.0**12), with_gradients()
    torch.testing.assert_close(clip_gradients(scaled, 0.5, loss_scale=2.0**12), clip_gradients(plain, 0.5))
    torch.testing.assert_close(gradients(scaled), gradients(plain))


def test_without_a_limit_gradients_stay_as_they_are() -> None:
    model = with_gradients()
    before = copy.deepcopy(gradients(model))
    norm = clip_gradients(model)
    torch.testing.assert_close(norm, torch.cat([gradient.flatten() for gradient in before]).norm())
    assert all(torch.equal(one, other) for one, other in zip(gradients(model), before, strict=True))


def test_a_scaler_grows_and_falls_as_that_of_torch() -> None:
    ours = LossScaler(interval=3)
    theirs = torch.amp.GradScaler("cpu", growth_interval=3)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    for finite in (True, True, True, True, False, True, True, False, False, *[True] * 7):
        parameter.grad = torch.tensor([1.0 if finite else float("inf")])
        theirs.scale(torch.ones(1))
        theirs.step(optimizer)
        theirs.update()
        ours.update(finite)
        assert ours.scale == theirs.get_scale()
    assert ours.skipped == 3


def test_an_overflow_is_skipped_and_training_recovers() -> None:
    model = model_of("ViT CLIP").train()
    inputs = {"image": pictures(model, 4), "text": words(model, 4)}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scaler = LossScaler(2.0**40, interval=5)
    taken: list[bool] = []
    losses: list[float] = []
    for _ in range(40):
        optimizer.zero_grad()
        before = [parameter.detach().clone() for parameter in model.parameters()]
        result = contrastive_step(model, zoo.loss("contrastive"), inputs, precision="fp16", loss_scale=scaler.scale)
        norm = clip_gradients(model, 1.0, loss_scale=scaler.scale)
        taken.append(bool(norm.isfinite()))
        if taken[-1]:
            optimizer.step()
            losses.append(result.loss.item())
        else:
            assert all(torch.equal(one, two) for one, two in zip(before, model.parameters(), strict=True))
        scaler.update(taken[-1])
    assert not taken[0] and taken.count(False) == scaler.skipped < 30
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    assert losses[-1] < losses[0] - 0.1


def test_a_saved_scaler_goes_on_as_it_was() -> None:
    whole, parted = LossScaler(interval=3), LossScaler(interval=3)
    for finite in (True, False, True, True):
        whole.update(finite)
        parted.update(finite)
    resumed = LossScaler(1.0, interval=3)
    resumed.load_state_dict(parted.state_dict())
    for finite in (True, True, True):
        whole.update(finite)
        resumed.update(finite)
        assert whole.state_dict() == resumed.state_dict()
    with pytest.raises(CheckpointError, match="loss scale: expected scale, skipped, finite, found _scale"):
        resumed.load_state_dict({"_scale": 1.0})


class Averaging(torch.optim.SGD):
    """An optimizer that says which weights are in place."""

    mode = "train"

    def eval(self) -> None:
        self.mode = "eval"

    def train(self) -> None:
        self.mode = "train"


def test_an_optimizer_without_a_schedule_puts_its_average_in_place_in_a_block() -> None:
    model = model_of("ViT CLIP")
    optimizer = Averaging(model.parameters(), lr=1.0)
    with pytest.raises(RuntimeError, match="evaluation"), weights_that_count(optimizer, model):
        assert optimizer.mode == "eval"
        raise RuntimeError("evaluation")
    assert optimizer.mode == "train"
    with weights_that_count(torch.optim.SGD(model.parameters(), lr=1.0), model):
        pass
