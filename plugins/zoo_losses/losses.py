"""Losses over a batch of image-text pairs: row i of the images belongs to row i of the texts, and to no other.

Features have unit length and the logit scale is already exponentiated, as `model(image, text)` returns them.
"""

from __future__ import annotations

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_core.errors import InputError


class _PairLoss(nn.Module):
    """What both losses share: checked features, logits, and the dict form of the result."""

    @classmethod
    def from_config(cls, config: object) -> Self:
        """Build from a config, which holds no options."""
        return cls()

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor | None = None,
        output_dict: bool = False,
    ) -> Any:
        """Return the loss of a batch.

        Args:
            image_features: unit-norm features `[B, D]`.
            text_features: unit-norm features `[B, D]`.
            logit_scale: factor of the cosines, `[]` or `[1]`.
            logit_bias: offset of the logits, `[]` or `[1]`.
            output_dict: return `{"contrastive_loss": loss}` instead of the loss.

        Returns:
            a scalar, in the dtype of the features.

        Raises:
            InputError: the features are no pairs.
        """
        if image_features.ndim != 2 or image_features.shape != text_features.shape:
            raise InputError(
                f"expected image and text features of one shape [B, D], found {list(image_features.shape)} "
                f"and {list(text_features.shape)}"
            )
        logits = logit_scale * image_features @ text_features.T
        loss = self.of_logits(logits if logit_bias is None else logits + logit_bias)
        return {"contrastive_loss": loss} if output_dict else loss

    def of_logits(self, logits: Tensor) -> Tensor:
        """Return the loss of logits `[B, B]`, images down and texts across."""
        raise AssertionError("a loss defines this")


class ClipLoss(_PairLoss):
    """Mean of the cross-entropies of finding each image's text and each text's image (Radford et al. 2021)."""

    def of_logits(self, logits: Tensor) -> Tensor:
        """Return the loss of logits `[B, B]`."""
        labels = torch.arange(logits.shape[0], device=logits.device)
        return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


class SigLipLoss(_PairLoss):
    """Binary cross-entropy of every pair, summed over texts and averaged over images (Zhai et al. 2023)."""

    def of_logits(self, logits: Tensor) -> Tensor:
        """Return the loss of logits `[B, B]`."""
        signs = 2 * torch.eye(logits.shape[0], dtype=logits.dtype, device=logits.device) - 1
        return -F.logsigmoid(signs * logits).sum() / logits.shape[0]
