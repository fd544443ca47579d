"""Refusals of models that were optimized for inference."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Self, cast

from torch import Tensor, nn

from zoo_core.boundary import checked
from zoo_core.errors import InputError
from zoo_core.nn.inference_forms import Optimization
from zoo_core.nn.state_dict import own_names, own_state_dict

__all__ = ["Freezable"]


class Freezable(nn.Module):
    """A module that `optimize="inference"` freezes: it computes features from then on, and nothing else.

    Attributes:
        optimizations: what was done, and what it brought; None for any other model. Weights are merged and packed for
            this machine, so that a model where it is not None cannot be trained, saved, moved or cast.
    """

    optimizations: tuple[Optimization, ...] | None = None

    @checked
    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode.

        Raises:
            InputError: the model was optimized for inference, and cannot be trained.
        """
        if mode:
            self._refuse_if_optimized("trained")
        return super().train(mode)

    @checked
    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Make all parameters trainable, or none; an `InputError` as in `train`."""
        if requires_grad:
            self._refuse_if_optimized("trained")
        return super().requires_grad_(requires_grad)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the weights.

        Raises:
            InputError: the model was optimized for inference: its weights are no longer those of the architecture.
        """
        self._refuse_if_optimized("saved")
        return cast("Any", super().state_dict(*args, **kwargs))

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Take weights; an `InputError` as in `state_dict`."""
        self._refuse_if_optimized("given other weights")
        return super().load_state_dict(*args, **kwargs)

    def own_state_dict(self) -> dict[str, Tensor]:
        """Return the state by the names of `named_parameters()` and `named_buffers()`; every model loads it too.

        `set_model_state_dict` of torch needs it to hand out weights with `broadcast_from_rank0`: it asks each process
        for tensors by these names, and drops what comes by published ones.
        """
        self._refuse_if_optimized("saved")
        return own_state_dict(self)

    @staticmethod
    def own_names() -> AbstractContextManager[None]:
        """Return a block in which `state_dict` gives the names and shapes of `named_parameters()`.

        It is for libraries that take the one for the other, such as accelerate's offloading and dispatching.
        """
        return own_names()

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self._refuse_if_optimized("moved or cast")  # its copies of the weights would stay behind
        return super()._apply(*args, **kwargs)  # pyright: ignore[reportUnknownMemberType]

    def _refuse_if_optimized(self, what: str) -> None:
        if self.optimizations is not None:
            raise InputError(
                f'a model built with optimize="inference" cannot be {what}: its weights are merged and packed for '
                "this machine; build it without optimize=, or with the device and dtype that you want"
            )
