"""The losses of a whole batch written out with dense matrices, to hold every shortcut to: float64, one process."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = (
    "image_features",
    "text_features",
    "logits",
    "labels",
    "ids",
    "weights",
    "dist_image_features",
    "dist_text_features",
)
"""Arguments that have one row for each pair; the others are scalars."""

PAIR = ("image_features", "text_features", "logit_scale", "logit_bias", "ids")
TEACHER = ("dist_image_features", "dist_text_features", "dist_logit_scale", "dist_logit_bias")
ARGUMENTS = {
    "contrastive": PAIR,
    "sigmoid": PAIR,
    "coca": (*PAIR, "logits", "labels"),
    "distillation": (*PAIR, *TEACHER),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "contrastive": {},
    "sigmoid": {},
    "coca": {"caption_loss_weight": 1.5, "clip_loss_weight": 0.5, "pad_id": 3},
    "distillation": {"clip_loss_weight": 0.75, "distill_loss_weight": 1.25},
}


def drawn(count: int, *, width: int = 6, seed: int = 0, classes: int = 3) -> dict[str, Tensor]:
    """Return every argument that a loss can have, for a batch of some size; captions differ in length."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    labels = torch.randint(4, 9, (count, 5), generator=generator)
    lengths = torch.randint(0, 6, (count, 1), generator=generator)
    return {
        "image_features": F.normalize(normal(count, width), dim=-1),
        "text_features": F.normalize(normal(count, width), dim=-1),
        "logit_scale": torch.tensor(9.0, dtype=torch.float64),
        "logit_bias": torch.tensor(-4.0, dtype=torch.float64),
        "ids": torch.randint(classes, (count,), generator=generator),
        "logits": normal(count, 5, 9),
        "labels": torch.where(torch.arange(5) < lengths, labels, 3),
        "dist_image_features": F.normalize(normal(count, width + 2), dim=-1),
        "dist_text_features": F.normalize(normal(count, width + 2), dim=-1),
        "dist_logit_scale": torch.tensor(12.0, dtype=torch.float64),
        "dist_logit_bias": torch.tensor(3.0, dtype=torch.float64),
        "weights": 2 * torch.rand(count, generator=generator, dtype=torch.float64),
    }


def arguments(name: str, batch: dict[str, Tensor], *, ids: bool, weights: bool = False) -> dict[str, Tensor]:
    """Return copies of the arguments of a loss, of which those with a gradient want one."""
    chosen = {key: batch[key].clone() for key in ARGUMENTS[name] if ids or key != "ids"}
    given = {key: value.requires_grad_(value.is_floating_point()) for key, value in chosen.items()}
    return given | {"weights": batch["weights"]} if weights else given


def gradients(value: Tensor, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the gradients of what a model would train: not of the teacher."""
    wanted = {key: one for key, one in given.items() if one.requires_grad and not key.startswith("dist_")}
    return dict(zip(wanted, torch.autograd.grad(value, list(wanted.values())), strict=True))


def reference(name: str, given: dict[str, Tensor]) -> Tensor:
    """Return the total of a loss with its `OPTIONS`; `weights` are factors of what each pair adds."""
    options = OPTIONS[name]
    logits = _logits(given, "")
    ids = given.get("ids", torch.arange(len(logits)))
    weights = given.get("weights", torch.ones(len(logits), dtype=torch.float64)).detach()
    same = ids[:, None] == ids
    if name == "sigmoid":
        losses = F.binary_cross_entropy_with_logits(logits, same.double(), reduction="none")
        return (losses * (weights[:, None] + weights) / 2).sum() / len(logits)
    contrastive = _both_directions(logits, same.double() / same.sum(dim=1), same.double() / same.sum(dim=1), weights)
    if name == "contrastive":
        return contrastive
    if name == "coca":
        scored = given["labels"] != options["pad_id"]
        chosen = given["logits"].log_softmax(dim=-1).gather(-1, given["labels"][..., None])[..., 0]
        captions = -(chosen * weights[:, None])[scored].sum() / max(1, int(scored.sum()))
        return options["clip_loss_weight"] * contrastive + options["caption_loss_weight"] * captions
    taught = _logits(given, "dist_").detach()
    distillation = _both_directions(logits, taught.softmax(dim=1), taught.T.softmax(dim=1), weights)
    return options["clip_loss_weight"] * contrastive + options["distill_loss_weight"] * distillation


def _logits(given: dict[str, Tensor], prefix: str) -> Tensor:
    features = given[f"{prefix}image_features"] @ given[f"{prefix}text_features"].T
    return features * given[f"{prefix}logit_scale"] + given[f"{prefix}logit_bias"]


def _both_directions(logits: Tensor, of_images: Tensor, of_texts: Tensor, weights: Tensor) -> Tensor:
    images = -(weights * (of_images * logits.log_softmax(dim=1)).sum(dim=1)).mean()
    texts = -(weights * (of_texts * logits.T.log_softmax(dim=1)).sum(dim=1)).mean()
    return (images + texts) / 2
