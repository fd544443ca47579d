"""Declares the contrastive and the sigmoid loss."""

from collections.abc import Iterator

from zoo_core.plugin import ComponentSpec, hookimpl

ZOO_API_VERSION = 1


@hookimpl
def zoo_components() -> Iterator[ComponentSpec]:
    """Declare the parts of this plugin."""
    yield ComponentSpec(
        kind="loss",
        name="contrastive",
        config="zoo_losses.config:ContrastiveLossConfig",
        factory="zoo_losses.losses:ClipLoss.from_config",
        summary="Symmetric cross-entropy over the pairs of a batch (CLIP)",
    )
    yield ComponentSpec(
        kind="loss",
        name="sigmoid",
        config="zoo_losses.config:SigmoidLossConfig",
        factory="zoo_losses.losses:SigLipLoss.from_config",
        summary="Binary cross-entropy of every pair of a batch (SigLIP)",
    )


@hookimpl
def zoo_exports() -> dict[str, str]:
    """Offer the losses under the names that the field knows."""
    return {"ClipLoss": "zoo_losses.losses:ClipLoss", "SigLipLoss": "zoo_losses.losses:SigLipLoss"}
