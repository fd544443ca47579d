"""The clock of a run: rates, waiting and due dates."""

from __future__ import annotations

import time

__all__ = ["Clock"]


class Clock:
    """Measures steps between records; evaluations and checkpoints do not count."""

    def __init__(self) -> None:
        self._began = self._saved = time.monotonic()
        self._mark = time.perf_counter()
        self._waited = self._worked = 0.0
        self._steps = 0

    def batch_came(self) -> None:
        """A batch is there: what passed since the last step was waiting."""
        self._waited += self._lap()

    def step_ended(self) -> None:
        """A step is done."""
        self._worked += self._lap()
        self._steps += 1

    def resume(self) -> None:
        """Go on after something that does not count."""
        self._lap()

    def record(self, batch: int) -> dict[str, float]:
        """Return samples a second and the share of waiting since the last record, and begin anew."""
        total = self._waited + self._worked
        rates = {
            "samples_per_second": self._steps * batch / total if total else 0.0,
            "data_wait": self._waited / total if total else 0.0,
        }
        self._waited = self._worked = 0.0
        self._steps = 0
        return rates

    def save_is_due(self, minutes: float | None) -> bool:
        """Tell whether the last checkpoint is older than so many minutes."""
        return minutes is not None and time.monotonic() - self._saved >= 60 * minutes

    def saved(self) -> None:
        """A checkpoint was written."""
        self._saved = time.monotonic()

    def run_is_over(self, minutes: float | None) -> bool:
        """Tell whether the run has lasted so many minutes."""
        return minutes is not None and time.monotonic() - self._began >= 60 * minutes

    def _lap(self) -> float:
        now = time.perf_counter()
        passed, self._mark = now - self._mark, now
        return passed
