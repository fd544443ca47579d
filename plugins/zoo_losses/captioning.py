"""CoCa's loss: contrastive as CLIP's, and cross-entropy of the caption."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo_core.boundary import checked
from zoo_core.errors import InputError, describe
from zoo_losses.contrastive import ClipLoss
from zoo_losses.gathering import Group, rank_and_count, sum_over
from zoo_losses.pairs import GatheringLoss, check_number, check_one, check_weights, describe_argument, is_set

__all__ = ["CoCaLoss"]


class CoCaLoss(GatheringLoss):
    """The contrastive loss and the cross-entropy of captions, each times its weight (Yu et al. 2022).

    The mean of the captions is over the tokens of all processes that are no padding, not the mean of each process's
    mean, which would give the tokens of a process with short captions more weight.

    Args:
        caption_loss_weight: factor of the cross-entropy of the captions.
        clip_loss_weight: factor of the contrastive loss; 0 leaves it out.
        pad_id: label that is not scored, `model.tokenizer.pad_id`; has to be given, since tokenizers differ in it.
        local_loss, gather_with_grad, use_horovod: as of `GatheringLoss`.
        cache_labels, rank, world_size, chunk_size, group: as of `PairLoss`.

    Raises:
        InputError: an argument of a wrong type or range.
    """

    sample_outputs = ("logits", "labels")

    def __init__(
        self,
        caption_loss_weight: float = 2.0,
        clip_loss_weight: float = 1.0,
        pad_id: int | None = None,
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
        check_number("caption_loss_weight", caption_loss_weight)
        check_number("clip_loss_weight", clip_loss_weight)
        if type(pad_id) is not int:
            raise InputError(f"pad_id must be the id of the padding, model.tokenizer.pad_id, found {describe(pad_id)}")
        self.caption_loss_weight = caption_loss_weight
        self.clip_loss_weight = clip_loss_weight
        self.pad_id = pad_id
        self.contrastive = ClipLoss(chunk_size=chunk_size, group=group)

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logits: Tensor,
        labels: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor | None = None,
        output_dict: bool = False,
        ids: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Any:
        """Return both losses of the batch of all processes, weighted.

        Args:
            image_features: unit-norm features `[B, D]`.
            text_features: unit-norm features `[B, D]`.
            logits: of the caption tokens, `[B, L, V]`.
            labels: int64 token ids `[B, L]` that the logits should predict.
            logit_scale: factor of the cosines, exponentiated, `[]` or `[1]`.
            logit_bias: offset of the contrastive logits, `[]` or `[1]`; cancels.
            output_dict: return `{"contrastive_loss": ..., "caption_loss": ...}` instead of a pair.
            ids: int64 `[B]`; pairs of one id are positives of each other.
            weights: `[B]`, factors of what each pair and each caption adds to the loss.

        Returns:
            contrastive and caption loss, scalars in float32 or float64; their sum is what is trained. The caption
            loss is 0 where all labels are padding, the contrastive loss where its weight is 0.

        Raises:
            InputError: a tensor of a wrong shape, dtype or device, or an empty batch.
        """
        captions = {"logits": logits, "labels": labels}
        share = self.sample_losses(captions, self.mean_over_processes(self.sample_count(captions)), weights=weights)
        losses = {
            **self.pair_losses(image_features, text_features, logit_scale, logit_bias, ids=ids, weights=weights),
            "caption_loss": self.mean_over_processes(share["caption_loss"]),
        }
        return losses if is_set("output_dict", output_dict) else tuple(losses.values())

    @checked
    def pair_losses(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor | None = None,
        *,
        ids: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the contrastive loss of the batch of all processes, weighted; 0 where its weight is 0."""
        self.check_processes()
        if not self.clip_loss_weight:
            dtype = torch.promote_types(image_features.dtype, torch.float32)
            return {"contrastive_loss": image_features.new_zeros((), dtype=dtype)}
        loss = self.contrastive(image_features, text_features, logit_scale, logit_bias, ids=ids, weights=weights)
        return {"contrastive_loss": self.clip_loss_weight * loss}

    @checked
    def sample_count(self, outputs: Mapping[str, Any]) -> Tensor:
        """Return how many tokens are no padding."""
        return (_captions(outputs)[1] != self.pad_id).sum()

    @checked
    def sample_losses(
        self, outputs: Mapping[str, Any], mean_count: Tensor, *, weights: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the cross-entropies of some captions, their sum over the mean number of tokens of a process."""
        logits, labels = _captions(outputs)
        check_one("mean_count", mean_count, logits)
        check_weights(weights, logits)
        logits = logits.flatten(0, 1).to(torch.promote_types(logits.dtype, torch.float32))
        with torch.autocast(logits.device.type, enabled=False):
            if weights is None:
                total = F.cross_entropy(logits, labels.flatten(), ignore_index=self.pad_id, reduction="sum")
            else:
                losses = F.cross_entropy(logits, labels.flatten(), ignore_index=self.pad_id, reduction="none")
                total = weights.to(losses.dtype) @ losses.view(labels.shape).sum(dim=1)
        mean_count = mean_count.clamp(min=1 / self.check_processes()).to(total.dtype)
        return {"caption_loss": self.caption_loss_weight * total / mean_count}

    @checked
    def mean_over_processes(self, value: Tensor) -> Tensor:
        """Return the mean of a scalar over the processes that share the batch."""
        total = sum_over(self.group, value)
        if not total.is_floating_point() and total.device.type != "mps":  # which has no float64
            total = total.double()
        return total / rank_and_count(self.group)[1]


def _captions(outputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Return logits and labels of the captions, checked."""
    logits, labels = outputs.get("logits"), outputs.get("labels")
    if not isinstance(logits, Tensor) or logits.ndim != 3 or not logits.is_floating_point():
        raise InputError(f"logits must be a floating-point tensor [B, L, V], found {describe_argument(logits)}")
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.shape != logits.shape[:2]:
        raise InputError(
            f"labels must be a tensor of int64 {list(logits.shape[:2])}, found {describe_argument(labels)}"
        )
    if labels.device != logits.device:
        raise InputError(f"labels are on {labels.device}, but logits on {logits.device}; move one of them")
    if labels.numel() == 0:
        raise InputError(f"expected at least one caption token, found logits {list(logits.shape)}")
    return logits, labels
