"""Reports of profiles, as plain numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Hardware", "ModelProfile", "TowerProfile"]


@dataclass(frozen=True)
class TowerProfile:
    """One tower's cost.

    Attributes:
        parameters: how many numbers its parameters hold; shared ones count once.
        parameter_bytes: the memory that they take.
        dtype: of the first floating-point parameter, and of the images that it was fed: `"float32"`.
        input_shape: of the batch, `(B, 3, H, W)` or `(B, L)`.
        macs: multiply-adds per sample of all matrix products and convolutions, with those of attention
            (`Q K^T` and `A V`, in full even where causal); element-wise work, norms and softmax are left out.
        latency: median seconds per batch.
        peak_activation_bytes: the most memory that one forward of the batch holds at a time, beside what was
            there before it (parameters and input); `profile_model` says how it is measured.
    """

    parameters: int
    parameter_bytes: int
    dtype: str
    input_shape: tuple[int, ...]
    macs: int
    latency: float
    peak_activation_bytes: int

    @property
    def flops(self) -> int:
        """Floating-point operations per sample: 2 x `macs`, a multiplication and an addition each."""
        return 2 * self.macs

    @property
    def samples_per_second(self) -> float:
        """Batch size over `latency`."""
        return self.input_shape[0] / self.latency

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes, `flops` and `samples_per_second` as JSON types."""
        return {
            **asdict(self),
            "input_shape": list(self.input_shape),
            "flops": self.flops,
            "samples_per_second": self.samples_per_second,
        }


@dataclass(frozen=True)
class Hardware:
    """What the figures were measured on; `gpu` is None on a CPU, `threads` are those of torch on the CPU."""

    device: str
    cpu: str
    gpu: str | None
    threads: int
    torch: str


@dataclass(frozen=True)
class ModelProfile:
    """A model's cost, whole and by tower.

    Attributes:
        parameters: of the whole model, with what belongs to neither tower (the logit scale).
        parameter_bytes: the memory that they take.
        towers: by modality, such as `"image"` and `"text"`; a tower that the model lacks is absent.
        steps: how many batches each latency is the median of.
        hardware: what it was measured on.
        trace: the file for TensorBoard, where one was asked for.
    """

    parameters: int
    parameter_bytes: int
    towers: dict[str, TowerProfile]
    steps: int
    hardware: Hardware
    trace: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it all as JSON types."""
        return {
            **asdict(self),
            "towers": {name: tower.to_dict() for name, tower in self.towers.items()},
            "trace": None if self.trace is None else str(self.trace),
        }
