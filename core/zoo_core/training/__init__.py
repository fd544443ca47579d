"""Contracts of training: data sets, callbacks and evaluators that plugins bring.

Importing it imports no torch. Optimizers are those of `torch.optim`, and losses stand in `zoo_core.interfaces`.
"""

from zoo_core.training.callbacks import Callback, StepRecord
from zoo_core.training.datasets import Dataset, Sample, SampleSource, Stream
from zoo_core.training.evaluators import Evaluator

__all__ = ["Callback", "Dataset", "Evaluator", "Sample", "SampleSource", "StepRecord", "Stream"]
