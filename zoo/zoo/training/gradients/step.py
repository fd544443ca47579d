"""One step of contrastive training: the gradient of a batch's loss.

It is a function of a model, a loss and a batch alone, for any loop: it neither zeroes gradients nor takes a step of an
optimizer.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.training.gradients.batch_loss import BatchLoss
from zoo.training.gradients.chunks import ChunkedStep, chunk_sizes, length
from zoo.training.gradients.wrapped_model import WrappedModel, bare_model
from zoo_core.boundary import checked
from zoo_core.errors import InputError

__all__ = ["Precision", "StepResult", "clamp_logit_scale", "contrastive_step", "seed_step"]

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class StepResult:
    """What a step measured, without gradient.

    Attributes:
        loss: the loss of the batch of all processes.
        losses: its parts by name; the loss itself where it has none.
        logit_scale: factor of the cosines before the step.
    """

    loss: Tensor
    losses: dict[str, Tensor]
    logit_scale: Tensor


@checked
def contrastive_step(
    model: Any,
    loss: Any,
    inputs: Mapping[str, Any],
    *,
    ids: Tensor | None = None,
    weights: Tensor | None = None,
    chunk: int | Mapping[str, int] | None = None,
    precision: Precision = "fp32",
    loss_scale: float = 1.0,
) -> StepResult:
    """Add the gradient of the loss of a batch to the gradients of a model.

    Args:
        model: a `DualEncoder`, bare or in DistributedDataParallel, FSDP2 or torch.compile.
        loss: of `zoo.loss`, or any `zoo_core.interfaces.Loss`.
        inputs: a batch for each of two modalities, such as `{"image": [B, 3, H, W], "text": [B, L]}`; each process has
            its own.
        ids: int64 `[B]`; pairs of one id are positives of each other.
        weights: `[B]`, factors of the parts that pairs have in the loss.
        chunk: samples that go through the model at a time, or a number for each modality; the gradient is that of the
            whole batch at the memory of a chunk and the time of one more forward pass (see `chunks`, beside this file).
        precision: what matrix products are computed in; parameters stay as they are.
        loss_scale: factor of the gradients, which keeps those in float16 from vanishing; see `LossScaler`.

    Raises:
        InputError: the model, the loss and the inputs do not go together, a trained parameter is in half precision, or
            there are chunks and a batch norm in training mode.
    """
    wrapped = WrappedModel.of(model, inputs)
    options = {name: value for name, value in (("ids", ids), ("weights", weights)) if value is not None}
    batch_loss = BatchLoss(loss, wrapped.pair, options)
    sizes = {} if chunk is None else chunk_sizes(chunk, inputs)
    if any(size < length(inputs[name]) for name, size in sizes.items()):
        losses, scale = ChunkedStep(wrapped, batch_loss, inputs, sizes, precision, loss_scale).backward()
    else:
        losses, scale = _backward(wrapped, batch_loss, inputs, precision, loss_scale)
    return StepResult(torch.stack(list(losses.values())).sum(), losses, scale)


def _backward(
    wrapped: WrappedModel, batch_loss: BatchLoss, inputs: Mapping[str, Any], precision: Precision, loss_scale: float
) -> tuple[dict[str, Tensor], Tensor]:
    """Add the gradient of a batch in one pass; return the losses by name, and the logit scale."""
    outputs = wrapped.forward(inputs, precision)
    losses, shares = batch_loss.of_batch(outputs)
    total = torch.stack([*losses.values(), *shares.values()]).sum()
    (total * loss_scale).backward()  # pyright: ignore[reportUnknownMemberType]
    return batch_loss.reported(losses, shares), outputs["logit_scale"].detach()


@checked
def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed what a model draws in a step, such as dropout: a function of the three numbers, so that none is saved.

    Raises:
        InputError: a number is negative.
    """
    for name, value in (("seed", seed), ("step", step), ("rank", rank)):
        if value < 0:
            raise InputError(f"{name} must not be negative, found {value}")
    digest = hashlib.blake2b(struct.pack("<QQQ", seed, step, rank), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "little") >> 1)  # pyright: ignore[reportUnknownMemberType]


@torch.no_grad()
def clamp_logit_scale(model: Any, least: float, most: float | None) -> None:
    """Keep the factor of the cosines of a model within bounds; what a process has no part of is left alone."""
    scale: Any = bare_model(model).logit_scale.detach()
    local = scale.to_local() if hasattr(scale, "to_local") else scale
    bounds = torch.tensor([least, float("inf") if most is None else most]).log()
    local.clamp_(bounds[0].item(), bounds[1].item())
