"""States of torch's random number generators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["RandomState"]


@dataclass(frozen=True)
class RandomState:
    """What torch draws next on the CPU and on one device.

    Attributes:
        device: the device.
        on_cpu: state of the CPU's generator.
        on_device: state of the device's; None where it is the CPU.
    """

    device: torch.device
    on_cpu: Tensor
    on_device: Tensor | None

    @classmethod
    def now(cls, device: torch.device) -> RandomState:
        """Return the state as it is."""
        on_device = None if device.type == "cpu" else _module(device).get_rng_state(*_which(device))
        return cls(device, torch.get_rng_state(), on_device)

    def restore(self) -> None:
        """Let torch draw what it drew from this state on."""
        torch.set_rng_state(self.on_cpu)
        if self.on_device is not None:
            _module(self.device).set_rng_state(self.on_device, *_which(self.device))


def _module(device: torch.device) -> Any:
    """Return torch's module of a kind of device, such as `torch.cuda`."""
    return torch.get_device_module(device)


def _which(device: torch.device) -> tuple[torch.device, ...]:
    """Return what says which device of its kind is meant, where there can be several."""
    return () if device.type == "mps" else (device,)
