"""The contrastive loss of CLIP: which text belongs to an image, and which image to a text."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from zoo_losses.cross_entropy import positives, symmetric_cross_entropies
from zoo_losses.pairs import PairLoss, Pairs, check_one

__all__ = ["ClipLoss"]


class ClipLoss(PairLoss):
    """Mean of the cross-entropies of finding each image's text and each text's image (Radford et al. 2021).

    With ids, all pairs of one id are positives of each other, and the target is uniform over them (as the supervised
    contrastive loss of UniCL, Yang et al. 2022, normalised); with distinct ids it is the plain loss.
    """

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor | None = None,
        output_dict: bool = False,
        ids: Tensor | None = None,
    ) -> Any:
        """Return the loss of the batch of all processes.

        Args:
            image_features: unit-norm features `[B, D]`.
            text_features: unit-norm features `[B, D]`.
            logit_scale: factor of the cosines, exponentiated, `[]` or `[1]`.
            logit_bias: offset of the logits, `[]` or `[1]`; cancels here, and gets a gradient of zero.
            output_dict: return `{"contrastive_loss": loss}` instead of the loss.
            ids: int64 `[B]`; pairs of one id are positives of each other.

        Returns:
            a scalar, in float64 for features in float64 and in float32 for all others.

        Raises:
            InputError: a tensor of a wrong shape, dtype or device, or an empty batch.
        """
        if logit_bias is not None:
            check_one("logit_bias", logit_bias, image_features)
        pairs = Pairs.of(image_features, text_features, logit_scale, ids, group=self.group)
        loss = symmetric_cross_entropies(pairs, [positives(pairs)], self.chunk_size, logit_bias).squeeze(0)
        return {"contrastive_loss": loss} if output_dict else loss
