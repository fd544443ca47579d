"""Names of state-dict entries: how published ones become those of our modules."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["is_sharded", "rename_entry", "sharded_like"]


def is_sharded(value: Tensor) -> bool:
    """Tell whether a tensor is one of FSDP's, of which each process holds a part."""
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)


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
        state_dict[own] = sharded_like(given, state_dict.pop(published))


def sharded_like(parameter: Tensor, value: Tensor) -> Tensor:
    """Return the tensor `value`, whole or sharded in whatever way, on the devices and in the shards of `parameter`."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(parameter, DTensor):
        return value
    if isinstance(value, DTensor):
        return value.redistribute(parameter.device_mesh, parameter.placements)
    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
