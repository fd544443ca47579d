"""Declares the callbacks that write to TensorBoard, Weights & Biases and Trackio."""

from collections.abc import Iterator

from zoo_core.plugin import ComponentSpec, hookimpl

ZOO_API_VERSION = 1


@hookimpl
def zoo_components() -> Iterator[ComponentSpec]:
    """Declare the parts of this plugin."""
    yield ComponentSpec(
        kind="callback",
        name="tensorboard",
        config="zoo_loggers.config:TensorBoardConfig",
        factory="zoo_loggers.tensorboard:TensorBoard",
        summary="Metrics of a run as event files of TensorBoard",
        requires=("tensorboard",),
    )
    yield ComponentSpec(
        kind="callback",
        name="wandb",
        config="zoo_loggers.config:WandbConfig",
        factory="zoo_loggers.wandb:Wandb",
        summary="Metrics of a run in Weights & Biases",
        requires=("wandb",),
    )
    yield ComponentSpec(
        kind="callback",
        name="trackio",
        config="zoo_loggers.config:TrackioConfig",
        factory="zoo_loggers.trackio:Trackio",
        summary="Metrics of a run in Trackio, on this machine or in a Space of the Hugging Face Hub",
        requires=("trackio",),
    )
