"""Contrastive loss of CLIP."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from zoo_losses.cross_entropy import positives, symmetric_cross_entropies
from zoo_losses.gathering import Group
from zoo_losses.pairs import GatheringLoss, Pairs, check_one, is_set

__all__ = ["ClipLoss"]


class ClipLoss(GatheringLoss):
    """Mean of the cross-entropies of finding each image's text and each text's image (Radford et al. 2021).

    With ids, all pairs of one id are positives of each other, and the target is uniform over them (as the supervised
    contrastive loss of UniCL, Yang et al. 2022, normalised); with distinct ids it is the plain loss.

    Arguments are those of `GatheringLoss` and `PairLoss`, in the order of open_clip.
    """

    def __init__(
        self,
        local_loss: bool | None = None,
        gather_with_grad: bool | None = None,
        cache_labels: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        use_horovod: bool = False,
        *,
        chunk_size: int | None = None,
        group: Group = None,
    ) -> None:
        super().__init__(
            local_loss=local_loss,
            gather_with_grad=gather_with_grad,
            cache_labels=cache_labels,
            rank=rank,
            world_size=world_size,
            use_horovod=use_horovod,
            chunk_size=chunk_size,
            group=group,
        )

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor | None = None,
        output_dict: bool = False,
        ids: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Any:
        """Return the loss of the batch of all processes.

        Args:
            image_features: unit-norm features `[B, D]`.
            text_features: unit-norm features `[B, D]`.
            logit_scale: factor of the cosines, exponentiated, `[]` or `[1]`.
            logit_bias: offset of the logits, `[]` or `[1]`; cancels here, and gets a gradient of zero.
            output_dict: return `{"contrastive_loss": loss}` instead of the loss.
            ids: int64 `[B]`; pairs of one id are positives of each other.
            weights: `[B]`, factors of what each pair adds to the loss; those of a pair of two are the mean of theirs.

        Returns:
            a scalar, in float64 for features in float64 and in float32 for all others.

        Raises:
            InputError: a tensor of a wrong shape, dtype or device, or an empty batch.
        """
        self.check_processes()
        if logit_bias is not None:
            check_one("logit_bias", logit_bias, image_features)
        pairs = Pairs.of(image_features, text_features, logit_scale, ids, weights=weights, group=self.group)
        loss = symmetric_cross_entropies(pairs, [positives(pairs)], self.chunk_size, logit_bias).squeeze(0)
        return {"contrastive_loss": loss} if is_set("output_dict", output_dict) else loss
