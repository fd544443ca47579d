"""Profiles of towers, and traces for TensorBoard.

A profile holds parameters, multiply-adds, latency and memory. `tensorboard_trace_handler` also serves on its own:
torch's function of that name writes traces whose `record_function` spans and call stacks TensorBoard's profiler plugin
does not show. Importing this package imports torch.
"""

from zoo.inference.profiling.measure import profile_model, profile_towers
from zoo.inference.profiling.report import Hardware, ModelProfile, TowerProfile
from zoo.inference.profiling.traces import mend_trace, tensorboard_trace_handler, write_trace

__all__ = [
    "Hardware",
    "ModelProfile",
    "TowerProfile",
    "mend_trace",
    "profile_model",
    "profile_towers",
    "tensorboard_trace_handler",
    "write_trace",
]
