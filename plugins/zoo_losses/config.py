"""Configs of the losses.

Process groups are no data, and are arguments of the classes alone.
"""

from typing import Annotated

from pydantic import Field

from zoo_core.config import LossConfig

ChunkSize = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]


class PairLossConfig(LossConfig):
    """Options of all losses over pairs."""

    chunk_size: ChunkSize | None = None
    """Texts held against the images at a time, in forward and in backward; null picks as many as cost no time."""


class ContrastiveLossConfig(PairLossConfig):
    """The contrastive loss."""

    type: str = "contrastive"


class SigmoidLossConfig(PairLossConfig):
    """The sigmoid loss; its bias is the model's `logit_bias`."""

    type: str = "sigmoid"


class CoCaLossConfig(PairLossConfig):
    """The contrastive loss and that of captions."""

    type: str = "coca"
    caption_loss_weight: Weight = 2.0
    """Factor of the cross-entropy of the captions."""
    clip_loss_weight: Weight = 1.0
    """Factor of the contrastive loss; 0 leaves it out."""
    pad_id: int
    """Label that is not scored: the padding of the model's tokenizer, `model.tokenizer.pad_id`. There is no default,
    since tokenizers differ in it, and a loss that scores padding tells nobody."""


class DistillationLossConfig(PairLossConfig):
    """The contrastive loss and that against a teacher."""

    type: str = "distillation"
    clip_loss_weight: Weight = 1.0
    """Factor of the contrastive loss."""
    distill_loss_weight: Weight = 1.0
    """Factor of the cross-entropy to the teacher's probabilities."""
