"""Names of state-dict entries: how published ones become those of our modules."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["rename_entry"]


def rename_entry(state_dict: dict[str, Any], published: str, own: str, module: nn.Module) -> None:
    """Move a state dict's entry from its published name to the one that `module` uses, in place.

    An entry that is there by its own name stays, and the published one becomes an unexpected key. But torch's
    `set_model_state_dict` first adds every parameter of the model itself, by its own name: such an entry says
    nothing, except how the published one has to be sharded.
    """
    given = state_dict.get(own)
    if given is None:
        state_dict[own] = state_dict.pop(published)
    elif any(given is parameter for parameter in module.parameters()):
        state_dict[own] = _sharded_like(given, state_dict.pop(published))


def _sharded_like(parameter: Tensor, value: Tensor) -> Tensor:
    """Return the whole tensor `value` on the devices, and in the shards, of `parameter`."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    value = value.to(parameter.device)
    if not isinstance(parameter, DTensor) or isinstance(value, DTensor):
        return value
    return distribute_tensor(value, parameter.device_mesh, parameter.placements)
