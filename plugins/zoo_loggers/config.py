"""Configs of the callbacks that write metrics somewhere else."""

from __future__ import annotations

from typing import Literal

from zoo_core.config import CallbackConfig

__all__ = ["TensorBoardConfig", "TrackioConfig", "WandbConfig"]


class TensorBoardConfig(CallbackConfig):
    """Event files of TensorBoard."""

    type: str = "tensorboard"
    folder: str | None = None
    """Where event files are written; `tensorboard` in the folder of the run where null."""


class WandbConfig(CallbackConfig):
    """Weights & Biases. Log in with `wandb login`, or set WANDB_API_KEY."""

    type: str = "wandb"
    project: str = "zoo"
    """Project that the run belongs to."""
    entity: str | None = None
    """User or team that the project belongs to; that of the login where null."""
    name: str | None = None
    """Name of the run; that of its folder where null."""
    group: str | None = None
    """Group of runs that belong together."""
    tags: list[str] = []
    """Tags of the run."""
    mode: Literal["online", "offline", "disabled"] | None = None
    """Whether metrics are sent at once, kept in the folder of the run for `wandb sync`, or dropped; null leaves it to
    WANDB_MODE."""


class TrackioConfig(CallbackConfig):
    """Trackio."""

    type: str = "trackio"
    project: str = "zoo"
    """Project that the run belongs to."""
    name: str | None = None
    """Name of the run; that of its folder where null."""
    group: str | None = None
    """Group of runs that belong together."""
    space_id: str | None = None
    """Space of the Hugging Face Hub that shows the project; null keeps it on this machine."""
