"""Every parameter is drawn from the seed, at the spread that the paper gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import zoo
from support.models.tiny_clip import KINDS
from support.peer import peer_names, small_overrides, tiny_arguments
from zoo import CLIP, CLIPTextCfg, CLIPVisionCfg


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Let `torch.empty` hold NaN, so that a parameter that nobody sets shows."""
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def assert_drawn(build: Any) -> None:
    torch.manual_seed(7)
    first = build()
    torch.empty(1_000_000).fill_(3.0)
    torch.manual_seed(7)
    second = build()
    for (name, one), other in zip(first.named_parameters(), second.parameters(), strict=True):
        assert one.isfinite().all(), name
        assert torch.equal(one, other), name
    torch.manual_seed(8)
    assert not torch.equal(build().visual.conv1.weight, first.visual.conv1.weight)


@pytest.mark.parametrize("name", sorted(peer_names()))
@pytest.mark.usefixtures("poisoned_memory")
def test_every_parameter_of_an_architecture_is_drawn_from_the_seed(name: str) -> None:
    overrides = small_overrides(name)
    assert_drawn(lambda: zoo.build(name, overrides=overrides))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
@pytest.mark.usefixtures("poisoned_memory")
def test_every_parameter_of_a_class_is_drawn_from_the_seed(kind: Any, dtype: torch.dtype | None) -> None:
    arguments = tiny_arguments(init_logit_bias=-1.0, nonscalar_logit_scale=True, cast_dtype=dtype)
    arguments["vision_cfg"]["ls_init_value"] = arguments["text_cfg"]["ls_init_value"] = 1e-5
    assert_drawn(lambda: kind(**arguments))


def test_weights_start_at_the_spread_that_the_paper_gives() -> None:
    torch.manual_seed(0)
    width, layers = 256, 6
    text = CLIPTextCfg(width=width, heads=4, layers=layers, vocab_size=1024)
    model = CLIP(128, CLIPVisionCfg(width=width, layers=layers, image_size=32), text)
    for stack in (model.transformer, model.visual.transformer):
        block = stack.resblocks[0]
        for weight, spread in (
            (block.attn.in_proj_weight, width**-0.5),
            (block.attn.out_proj.weight, width**-0.5 * (2 * layers) ** -0.5),
            (block.mlp.c_fc.weight, (2 * width) ** -0.5),
            (block.mlp.c_proj.weight, width**-0.5 * (2 * layers) ** -0.5),
        ):
            assert weight.std().item() == pytest.approx(spread, rel=0.02)
        assert not block.attn.in_proj_bias.any()
    assert model.token_embedding.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert model.positional_embedding.std().item() == pytest.approx(0.01, rel=0.02)
    assert model.text_projection.std().item() == pytest.approx(width**-0.5, rel=0.02)
    assert model.visual.proj.std().item() == pytest.approx(width**-0.5, rel=0.02)
