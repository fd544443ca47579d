"""Configs of the losses."""

from zoo_core.config import LossConfig


class ContrastiveLossConfig(LossConfig):
    """The contrastive loss has no options."""

    type: str = "contrastive"


class SigmoidLossConfig(LossConfig):
    """The sigmoid loss has no options; its bias is the model's `logit_bias`."""

    type: str = "sigmoid"
