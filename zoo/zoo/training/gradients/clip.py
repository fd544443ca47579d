"""What happens to gradients between a step's backward pass and the optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import utils

from zoo.training.gradients.wrapped_model import bare_model
from zoo_core.boundary import checked
from zoo_core.nn.state_dict import is_sharded

__all__ = ["clip_gradients"]


@checked
@torch.no_grad()
def clip_gradients(model: Any, clip: float | None = None, *, loss_scale: float = 1.0) -> Tensor:
    """Divide gradients by the loss scale, and shorten them to a norm.

    Args:
        model: a `DualEncoder`, bare or wrapped.
        clip: largest norm of all gradients together; None leaves them as they are.
        loss_scale: what the loss was multiplied by.

    Returns:
        the norm before, a scalar, the same on all processes. Where it is not finite, the step must be skipped.
    """
    parameters = [parameter for parameter in bare_model(model).parameters() if parameter.grad is not None]
    gradients: list[Tensor] = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if loss_scale != 1:
        torch._foreach_mul_(gradients, 1 / loss_scale)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
    total: Any = utils.get_total_norm(gradients)
    norm: Tensor = total.full_tensor() if is_sharded(total) else total
    if clip is not None:
        utils.clip_grads_with_norm_(parameters, clip, norm)
    return norm
