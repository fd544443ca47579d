"""Loss scale of float16: a factor of the loss that keeps small gradients from vanishing (Micikevicius et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping

from zoo_core.errors import CheckpointError

__all__ = ["LossScaler"]


class LossScaler:
    """Grows the scale while gradients are finite, and halves it where they are not.

    A step whose gradient is not finite is skipped by whoever takes it. The norm of the gradient is the same on all
    processes, and so is the scale.

    Args:
        scale: the first scale.
        growth: what it is multiplied by after `interval` finite steps in a row.
        backoff: what it is multiplied by after a step that is not finite.
        interval: number of steps.

    Attributes:
        scale: `loss_scale` of the next step.
        skipped: steps that were not finite.
    """

    def __init__(
        self, scale: float = 2.0**16, *, growth: float = 2.0, backoff: float = 0.5, interval: int = 2000
    ) -> None:
        self.scale, self.skipped = scale, 0
        self._growth, self._backoff, self._interval = growth, backoff, interval
        self._finite = 0

    def update(self, finite: bool) -> None:
        """Learn whether the gradient of a step was finite."""
        if not finite:
            self.scale *= self._backoff
            self.skipped += 1
            self._finite = 0
            return
        self._finite += 1
        if self._finite == self._interval:
            self.scale *= self._growth
            self._finite = 0

    def state_dict(self) -> dict[str, float]:
        """Return what a run goes on from."""
        return {"scale": self.scale, "skipped": self.skipped, "finite": self._finite}

    def load_state_dict(self, state_dict: Mapping[str, float]) -> None:
        """Go on from a state.

        Raises:
            CheckpointError: it is the state of something else.
        """
        if state_dict.keys() != self.state_dict().keys():
            raise CheckpointError(f"loss scale: expected {', '.join(self.state_dict())}, found {', '.join(state_dict)}")
        self.scale = float(state_dict["scale"])
        self.skipped, self._finite = int(state_dict["skipped"]), int(state_dict["finite"])
