"""What locking and gradient checkpointing do, and what becomes of a tower that claims neither."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support.models.tiny_clip import KINDS, tiny
from support.peer import captions, images
from zoo_core.errors import CapabilityError
from zoo_core.interfaces import VisionTower


@pytest.fixture(params=KINDS, ids=["CLIP", "CustomTextCLIP"])
def model(request: pytest.FixtureRequest) -> Any:
    return tiny(request.param)


class ConvolutionTower(VisionTower):
    """The least image tower, with a batch norm in it."""

    image_size = (8, 8)
    output_dim = 16

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 16, 3)
        self.norm = nn.BatchNorm2d(16)

    def forward(self, image: Tensor) -> Tensor:
        return self.norm(self.convolution(image)).mean((2, 3))


@pytest.mark.parametrize("frozen", [False, True], ids=["moving", "frozen"])
def test_freeze_bn_stats_keeps_running_statistics_in_training(frozen: bool) -> None:
    model = tiny()
    model.visual = ConvolutionTower()
    model.lock_image_tower(freeze_bn_stats=frozen)
    model.train()
    before = model.visual.norm.running_mean.clone()
    model.encode_image(torch.randn(4, 3, 8, 8))
    assert torch.equal(before, model.visual.norm.running_mean) == frozen


def test_a_tower_without_a_capability_refuses_it_and_nothing_is_changed() -> None:
    model = tiny()
    model.visual = ConvolutionTower()
    for ask in (
        lambda: model.lock_image_tower(unlocked_groups=1),
        lambda: model.set_grad_checkpointing(),
        lambda: model.forward_intermediates(torch.randn(1, 3, 8, 8)),
        lambda: model.visual.forward_tokens(torch.randn(1, 3, 8, 8)),
    ):
        with pytest.raises(CapabilityError, match="ConvolutionTower does not claim"):
            ask()
    assert not model.transformer.grad_checkpointing
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_gradient_checkpointing_recomputes_every_block(model: Any) -> None:
    calls: list[nn.Module] = []
    for tower in (model.visual, model.text):
        for block in tower.transformer.resblocks:
            block.attn.register_forward_hook(lambda module, *_: calls.append(module))
    for enable, times in ((True, 2), (False, 1)):
        calls.clear()
        model.set_grad_checkpointing(enable)
        image, text, _ = model.train()(images(model), captions(model))
        (image @ text.T).sum().backward()
        assert len(calls) == 6 * times
