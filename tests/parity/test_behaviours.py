"""Every behaviour of every family: a cell of docs/behaviours.md is a test here, or a reason that a test holds to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from support.models import sharding
from support.models.behaviours import BEHAVIOURS
from support.models.families import FAMILIES, model_of, pictures, words

# FSDP2 of torch 2.6 asks a CPU stream for an event, which it has not.
SHARDS_ON_CPU = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 7)
needs_shards = pytest.mark.skipif(not SHARDS_ON_CPU, reason="FSDP2 runs on the CPU from torch 2.7 on")


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_has_each_behaviour_or_tells_why_not(family: str, behaviour: str) -> None:
    if FAMILIES[family].reason(behaviour) is None:
        BEHAVIOURS[behaviour](family)
    else:
        BEHAVIOURS[behaviour](family, offered=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_encoding_builds_no_modules(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice of a `ModuleList` is a new one: for a small batch, that took longer than its matrix products."""
    model = model_of(family)

    def refuse(*args: Any) -> None:
        raise AssertionError("a module was built")

    monkeypatch.setattr(torch.nn.Module, "add_module", refuse)
    monkeypatch.setattr(torch.nn.Module, "register_module", refuse)
    model.encode_image(pictures(model))
    model.encode_text(words(model))


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return what each of two processes found."""
    return sharding.run(tmp_path_factory.mktemp("processes"))


def same(found: dict[str, Tensor], expected: dict[str, Tensor], **tolerance: float) -> None:
    """Compare a gathered state dict, in which the logit scale has the shape that shards give it."""
    shaped = {key: value.reshape(expected[key].shape) for key, value in found.items()}
    torch.testing.assert_close(shaped, dict(expected), **tolerance)


@needs_shards
@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_of_two_processes_is_the_step_of_one(processes: Any, family: str) -> None:
    alone = model_of(family)
    before = {key: value.clone() for key, value in alone.state_dict().items()}
    sharding.step(alone)
    assert any(not torch.equal(value, before[key]) for key, value in alone.state_dict().items())
    for found in processes:
        same(found[family]["sharded_step"], alone.state_dict(), rtol=1e-4, atol=1e-5)


@needs_shards
@pytest.mark.parametrize("run", ["sharded_state", "sharded_copy", "handed"])
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_reach_the_shards_and_come_back(processes: Any, family: str, run: str) -> None:
    expected = sharding.other(family).state_dict()
    for found in processes:
        same(found[family][run], expected, rtol=0, atol=0)


@needs_shards
@pytest.mark.parametrize("family", FAMILIES)
def test_shards_compute_what_one_process_computes(processes: Any, family: str) -> None:
    expected = sharding.features(sharding.other(family))
    for found in processes:
        torch.testing.assert_close(found[family]["outputs"], expected, rtol=0, atol=1e-5)
