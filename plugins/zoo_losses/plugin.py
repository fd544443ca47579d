"""Declaration of the contrastive, the sigmoid, the CoCa and the distillation loss."""

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
        factory="zoo_losses.contrastive:ClipLoss.from_config",
        summary="Symmetric cross-entropy over the pairs of a batch (CLIP)",
    )
    yield ComponentSpec(
        kind="loss",
        name="sigmoid",
        config="zoo_losses.config:SigmoidLossConfig",
        factory="zoo_losses.sigmoid:SigLipLoss.from_config",
        summary="Binary cross-entropy of every pair of a batch (SigLIP)",
    )
    yield ComponentSpec(
        kind="loss",
        name="coca",
        config="zoo_losses.config:CoCaLossConfig",
        factory="zoo_losses.captioning:CoCaLoss.from_config",
        summary="Symmetric cross-entropy over pairs, and that of caption tokens (CoCa)",
    )
    yield ComponentSpec(
        kind="loss",
        name="distillation",
        config="zoo_losses.config:DistillationLossConfig",
        factory="zoo_losses.distillation:DistillClipLoss.from_config",
        summary="Symmetric cross-entropy over pairs, and that to a teacher's probabilities",
    )


@hookimpl
def zoo_exports() -> dict[str, str]:
    """Offer the losses under the names that the field knows."""
    return {
        "ClipLoss": "zoo_losses.contrastive:ClipLoss",
        "SigLipLoss": "zoo_losses.sigmoid:SigLipLoss",
        "CoCaLoss": "zoo_losses.captioning:CoCaLoss",
        "DistillClipLoss": "zoo_losses.distillation:DistillClipLoss",
    }
