"""States of random number generators, on the CPU and on devices that are not here."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from zoo.training.gradients.random_state import RandomState


def test_what_was_drawn_is_drawn_again() -> None:
    state = RandomState.now(torch.device("cpu"))
    drawn = torch.rand(3)
    assert not torch.equal(torch.rand(3), drawn)
    state.restore()
    assert torch.equal(torch.rand(3), drawn)


class Generators:
    """Stands for torch's module of a device."""

    def __init__(self) -> None:
        self.states: dict[Any, torch.Tensor] = {}

    def get_rng_state(self, device: Any = "the only one") -> torch.Tensor:
        return self.states.setdefault(device, torch.tensor([1]))

    def set_rng_state(self, state: torch.Tensor, device: Any = "the only one") -> None:
        self.states[device] = state


@pytest.mark.parametrize(("name", "key"), [("cuda:1", torch.device("cuda:1")), ("mps", "the only one")])
def test_a_device_has_a_state_of_its_own(name: str, key: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    generators = Generators()
    monkeypatch.setattr(torch, "get_device_module", lambda device: generators)
    state = RandomState.now(torch.device(name))
    generators.states[key] = torch.tensor([2])
    state.restore()
    assert generators.states == {key: torch.tensor([1])}
