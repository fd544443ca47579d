"""Interface of evaluators: what is measured of a model while it trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoo_core.models.dual_encoder import DualEncoder

__all__ = ["Evaluator"]


class Evaluator(ABC):
    """Measures a model in evaluation mode.

    Built by a factory `(config) -> Evaluator`, with a config that derives from `zoo_core.config.EvaluatorConfig`.
    """

    @abstractmethod
    def evaluate(self, model: DualEncoder, *, rank: int, count: int) -> Mapping[str, float]:
        """Return metrics by name.

        Args:
            model: in evaluation mode, under `torch.no_grad`.
            rank: which process this is.
            count: how many there are. All call this at once, and may share the work through torch.distributed; the
                metrics of the first process count.

        Raises:
            DataError: what it measures with cannot be read.
        """
