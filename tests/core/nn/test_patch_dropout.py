"""Patch dropout leaves out a share of the patches, in training alone (Li et al. 2023)."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from support.models.tiny_clip import assert_same_outputs
from support.peer import images, randomized, tiny_arguments
from zoo import CLIP
from zoo_core.errors import InputError


def dropping() -> Any:
    arguments = tiny_arguments()
    arguments["vision_cfg"] |= {"image_size": 64, "patch_dropout": 0.5}  # 16 patches, of which 8 stay
    return randomized(CLIP(**arguments)).eval()


def kept_tokens(model: Any, image: Tensor) -> Tensor:
    seen: list[Tensor] = []
    handle = model.visual.transformer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.encode_image(image)
    handle.remove()
    return seen[0]


def test_patch_dropout_keeps_the_class_token_and_a_share_of_the_patches_of_each_image() -> None:
    model = dropping()
    image = images(model, 3)
    every, some = kept_tokens(model, image), kept_tokens(model.train(), image)
    assert (every.shape[1], some.shape[1]) == (17, 9)
    assert torch.equal(some[:, 0], every[:, 0])
    chosen = []
    for kept, all_of_them in zip(some[:, 1:], every[:, 1:], strict=True):
        matches = (kept[:, None] == all_of_them[None]).all(dim=-1)
        assert (matches.sum(dim=1) == 1).all(), "each kept token is a patch of its own image"
        chosen.append(frozenset(matches.int().argmax(dim=1).tolist()))
        assert len(chosen[-1]) == 8
    assert len(set(chosen)) > 1, "each image loses others"


def test_patch_dropout_leaves_evaluation_alone() -> None:
    model = dropping()
    plain = copy.deepcopy(model)
    plain.visual.patch_dropout = 0.0
    assert_same_outputs(model, plain)
    assert not torch.equal(model.train().encode_image(images(model)), plain.encode_image(images(model)))


def test_intermediates_are_refused_where_patches_are_dropped() -> None:
    model = dropping()
    with pytest.raises(InputError, match="intermediates need every patch: call eval"):
        model.train().forward_intermediates(images(model))
    assert len(model.eval().forward_intermediates(images(model))["image_intermediates"]) == 3
