"""Names and shapes of state-dict entries, published and our own."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from operator import attrgetter
from typing import Any, cast

import torch
from torch import Tensor, nn

from zoo_core.errors import InputError

__all__ = [
    "is_functional_call",
    "is_sharded",
    "join_entries",
    "joined",
    "own_names",
    "own_state_dict",
    "publishes",
    "put_joined",
    "rename_entry",
    "sharded_like",
    "split_entry",
]


def is_sharded(value: Tensor) -> bool:
    """Tell whether a tensor is one of FSDP's, of which each process holds a part."""
    tensors = sys.modules.get("torch.distributed.tensor")  # not imported for this: it takes a second, and sympy
    return tensors is not None and isinstance(value, tensors.DTensor)


_own_names: ContextVar[bool] = ContextVar("own_names", default=False)


@contextmanager
def own_names() -> Generator[None]:
    """Let state dicts carry the names and shapes that modules have, not the published ones, in this block."""
    token = _own_names.set(True)
    try:
        yield
    finally:
        _own_names.reset(token)


def publishes() -> bool:
    """Tell whether state dicts carry published names and shapes: everywhere but in `own_names`."""
    return not _own_names.get()


def own_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and persistent buffers by the names that modules have for them, detached."""
    parameters: dict[str, Tensor] = {name: parameter.detach() for name, parameter in model.named_parameters()}
    not_persistent = {
        f"{path}.{name}" if path else name
        for path, module in cast("Iterable[tuple[str, nn.Module]]", model.named_modules())
        for name in module._non_persistent_buffers_set  # pyright: ignore[reportPrivateUsage]
    }
    return parameters | {name: buffer for name, buffer in model.named_buffers() if name not in not_persistent}


def rename_entry(state_dict: dict[str, Any], published: str, own: str, module: nn.Module) -> None:
    """Move a state dict's entry from its published name to the one that `module` uses, in place.

    An entry under our own name stays, and the published one then becomes an unexpected key. There is one exception:
    torch's `set_model_state_dict` first fills our own names with the live parameters of the model. Such an entry is
    the parameter itself, by identity. The published entry replaces it, in the shards of that parameter.
    """
    if _is_free(state_dict, own, module):
        _put(state_dict, own, state_dict.pop(published))


def split_entry(
    state_dict: dict[str, Any], prefix: str, published: str, own: Sequence[str], module: nn.Module
) -> str | None:
    """Move the rows of a state dict's entry to the parameters of `module` that stand in it, in place.

    Nothing is moved where `rename_entry` would move nothing, or where `module` has no such parameters any more: a
    projection that something else has replaced loads by its own names.

    Returns:
        the problem, if there are not as many rows as parameters need.
    """
    parameters = dict(module.named_parameters())
    keys = [prefix + name for name in own]
    if not parameters.keys() >= set(own) or not all(_is_free(state_dict, key, module) for key in keys):
        return None
    value: Tensor = state_dict.pop(prefix + published)
    rows = [parameters[name].shape[0] for name in own]
    if value.ndim == 0 or value.shape[0] != sum(rows):
        return f"size mismatch for {prefix}{published}: expected {sum(rows)} rows, found shape {list(value.shape)}."
    parts = torch.split(value, rows) if len(own) > 1 else [value]
    for key, part in zip(keys, parts, strict=True):
        _put(state_dict, key, part)
    return None


def join_entries(
    state_dict: dict[str, Any], prefix: str, published: Mapping[str, Sequence[str]], module: nn.Module
) -> None:
    """Put parameters of `module`, whose entries begin with `prefix`, under their published names, in place.

    In `own_names` the state dict stays as it is. Published entries come first. Those of several parameters are copies,
    all others the same tensors. What is no parameter any more stays under its name; see `split_entry`.
    """
    if not publishes():
        return
    parameters = {name for name, _ in module.named_parameters()}
    entries = {key: state_dict.pop(key) for key in list(state_dict) if key.startswith(prefix)}
    for published_name, names in published.items():
        if parameters >= set(names):
            parts = [entries.pop(prefix + name) for name in names]
            state_dict[prefix + published_name] = parts[0] if len(parts) == 1 else torch.cat(parts)
    state_dict.update(entries)


def joined(module: nn.Module, own: Sequence[str]) -> Tensor:
    """Return the parameters of `module` that stand in one published entry, their rows one after the other.

    A tensor of several has them in its attribute `parts`, for `put_joined`.
    """
    parts: list[Tensor] = [attrgetter(name)(module) for name in own]  # in a functional call, these are no parameters
    if not all(isinstance(part, Tensor) for part in cast("Sequence[object]", parts)):
        raise AttributeError(f"{own[0]} is no tensor any more: something has replaced its layer")
    if len(parts) == 1:
        return parts[0]
    rows: Any = torch.cat(parts)
    rows.parts = parts
    return rows


def put_joined(module: nn.Module, published: str, own: Sequence[str], value: Tensor) -> None:
    """Set the parameters of `module` that stand in one published entry, as `setattr` sets one.

    `torch.func.functional_call` swaps tensors by published names too; what it puts back is what `joined` gave.

    Raises:
        TypeError: `value` is no parameter, and no such call is what sets it.
        InputError: it has not as many rows, or something else has replaced these parameters.
    """
    parameters = dict(module.named_parameters())
    if not parameters.keys() >= set(own):
        raise InputError(f"{published}: {own[0]} was replaced; set the parameters of what stands there")
    parts: Sequence[Tensor] | None = getattr(value, "parts", None)
    if parts is None:
        if not isinstance(value, nn.Parameter) and not is_functional_call():
            raise TypeError(f"cannot assign '{type(value).__name__}' as parameter '{published}' (torch.nn.Parameter)")
        rows = [parameters[name].shape[0] for name in own]
        if value.ndim == 0 or value.shape[0] != sum(rows):
            raise InputError(f"{published}: expected {sum(rows)} rows, found shape {list(value.shape)}")
        parts = torch.split(value, rows) if len(own) > 1 else [value]
        if len(own) > 1 and isinstance(value, nn.Parameter):
            parts = [nn.Parameter(part.detach().clone(), value.requires_grad) for part in parts]
    for name, part in zip(own, parts, strict=True):
        path, _, last = name.rpartition(".")
        module.get_submodule(path)._parameters[last] = cast("nn.Parameter", part)  # pyright: ignore[reportPrivateUsage]


def is_functional_call() -> bool:
    """Tell whether `torch.func.functional_call` puts tensors in place, which alone may put what is no parameter."""
    if torch.compiler.is_compiling():  # there are no frames to look at
        return True
    # Only the call stack shows it: torch swaps tensors with a plain `setattr`, offers no hook and sets no state. To
    # accept any tensor would be worse: one set by mistake would silently not be trained.
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    for _ in range(4):
        if frame.f_globals.get("__name__") == "torch.nn.utils._named_member_accessor":
            return True
        if frame.f_back is None:
            break
        frame = frame.f_back
    return False


def _is_free(state_dict: dict[str, Any], own: str, module: nn.Module) -> bool:
    entry = state_dict.get(own)
    return entry is None or any(entry is parameter for parameter in module.parameters())


def _put(state_dict: dict[str, Any], own: str, value: Tensor) -> None:
    entry = state_dict.get(own)
    state_dict[own] = value if entry is None else sharded_like(entry, value)


def sharded_like(parameter: Tensor, value: Tensor) -> Tensor:
    """Return the tensor `value`, whole or sharded in whatever way, on the devices and in the shards of `parameter`."""
    if not is_sharded(parameter):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(parameter, DTensor)  # for the types
    if isinstance(value, DTensor):
        return value.redistribute(parameter.device_mesh, parameter.placements)
    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
