"""Distillation loss: contrastive as CLIP's, and cross-entropy to a teacher."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo_core.errors import InputError
from zoo_losses.cross_entropy import Teacher, positives, symmetric_cross_entropies
from zoo_losses.pairs import GatheringLoss, Pairs, check_number, check_one, is_set

__all__ = ["DistillClipLoss"]


class DistillClipLoss(GatheringLoss):
    """The contrastive loss and the cross-entropy to a teacher's probabilities, in both directions (Hinton et al. 2015).

    One pass over the student's logits serves both losses. The teacher is a target: it gets no gradient, and its
    features may be of another width than the student's.

    Args:
        clip_loss_weight: factor of the contrastive loss.
        distill_loss_weight: factor of the cross-entropy to the teacher.
        options: those of `GatheringLoss` and `PairLoss`.

    Raises:
        InputError: an argument of a wrong type or range.
    """

    def __init__(
        self,
        clip_loss_weight: float = 1.0,
        distill_loss_weight: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_number("clip_loss_weight", clip_loss_weight)
        check_number("distill_loss_weight", distill_loss_weight)
        self.clip_loss_weight = clip_loss_weight
        self.distill_loss_weight = distill_loss_weight

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor,
        dist_image_features: Tensor,
        dist_text_features: Tensor,
        dist_logit_scale: Tensor,
        output_dict: bool = False,
        logit_bias: Tensor | None = None,
        dist_logit_bias: Tensor | None = None,
        ids: Tensor | None = None,
    ) -> Any:
        """Return both losses of the batch of all processes, weighted.

        Args:
            image_features: the student's unit-norm features `[B, D]`.
            text_features: the student's unit-norm features `[B, D]`.
            logit_scale: the student's factor of the cosines, exponentiated, `[]` or `[1]`.
            dist_image_features: the teacher's unit-norm features `[B, E]` of the same images.
            dist_text_features: the teacher's unit-norm features `[B, E]` of the same texts.
            dist_logit_scale: the teacher's factor of the cosines, exponentiated, `[]` or `[1]`.
            output_dict: return `{"contrastive_loss": ..., "distill_loss": ...}` instead of a pair.
            logit_bias: the student's offset of the logits, `[]` or `[1]`; cancels, as the teacher's does.
            dist_logit_bias: the teacher's offset of the logits, `[]` or `[1]`.
            ids: int64 `[B]`; pairs of one id are positives of each other in the contrastive loss.

        Returns:
            contrastive and distillation loss, scalars in float32 or float64; their sum is what is trained.

        Raises:
            InputError: a tensor of a wrong shape, dtype or device, or an empty batch.
        """
        self.check_processes()
        for name, bias in (("logit_bias", logit_bias), ("dist_logit_bias", dist_logit_bias)):
            if bias is not None:
                check_one(name, bias, image_features)
        pairs = Pairs.of(image_features, text_features, logit_scale, ids, group=self.group)
        with torch.no_grad():
            taught = Pairs.of(
                dist_image_features, dist_text_features, dist_logit_scale, group=self.group, prefix="dist_"
            )
        if taught.shard.sizes != pairs.shard.sizes:
            raise InputError(
                f"expected as many pairs of the teacher as of the student, found {list(taught.shard.sizes)} "
                f"beside {list(pairs.shard.sizes)}"
            )
        targets = [positives(pairs), Teacher.of(taught, self.chunk_size)]
        contrastive, distillation = symmetric_cross_entropies(pairs, targets, self.chunk_size, logit_bias)
        contrastive = self.clip_loss_weight * contrastive
        distillation = self.distill_loss_weight * distillation
        if is_set("output_dict", output_dict):
            return {"contrastive_loss": contrastive, "distill_loss": distillation}
        return contrastive, distillation
