"""DDP, FSDP2 and torch.compile around a model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from zoo_core.errors import ConfigError, Problem
from zoo_core.nn.layers import repeated_blocks

if TYPE_CHECKING:
    from zoo.training.parallel.world import World
    from zoo.training.recipe.sections import Parallel
    from zoo_core.models.dual_encoder import DualEncoder

__all__ = ["Mode", "choose_mode", "fsdp_blocks", "wrap"]

Mode = Literal["none", "ddp", "fsdp"]

BYTES_PER_PARAMETER = 24
"""Of a trained parameter with DDP: weight, gradient, bucket, two moments and an average, all in float32."""
SHARE = 0.6
"""Share of the memory that they may take, beside activations."""


def choose_mode(model: nn.Module, parallel: Parallel, world: World) -> tuple[Mode, str]:
    """Return how processes share a model, and why, as a sentence.

    Raises:
        ConfigError: the recipe asks for what does not fit the number of processes.
    """
    if parallel.mode == "none" and world.size > 1:
        raise ConfigError(
            Problem(f"is 'none', but there are {world.size} processes; use auto, ddp or fsdp", "parallel.mode")
        )
    shard = parallel.shard
    if shard is not None and (world.size % shard or parallel.mode in ("none", "ddp")):
        what = f"{world.size} processes cannot form groups of {shard}" if world.size % shard else "is for mode fsdp"
        raise ConfigError(Problem(what, "parallel.shard"))
    if parallel.mode in ("ddp", "fsdp") and not dist.is_initialized():
        what = f"is '{parallel.mode}', but this process is alone; use auto, or start it with torchrun"
        raise ConfigError(Problem(what, "parallel.mode"))
    if parallel.mode != "auto":
        return parallel.mode, "the recipe says so"
    if world.size == 1:
        return "none", "there is one process"
    if shard is not None:
        return "fsdp", "the recipe states parallel.shard"
    needed = sum(
        BYTES_PER_PARAMETER * parameter.numel() if parameter.requires_grad else parameter.nbytes
        for parameter in model.parameters()
    )
    memory = _memory_of(world.device)
    share = f"{needed / 2**30:.1f} GiB of weights and what belongs to them, of {memory / 2**30:.1f} GiB"
    if needed <= SHARE * memory:
        return "ddp", f"each process has room for {share}"
    return "fsdp", f"no process has room for {share} beside activations"


def wrap(model: DualEncoder, parallel: Parallel, world: World, mode: Mode) -> nn.Module:
    """Return what a training step calls; the model is changed in place, in the order that FSDP2 needs.

    Where processes have other weights, all get those of the first.

    Args:
        model: on the device of this process; what is to stay frozen is frozen already.
        parallel: the section of the recipe.
        world: the processes.
        mode: what `choose_mode` returned.

    Raises:
        CapabilityError: a tower cannot compute its activations again.
    """
    if parallel.checkpointing:
        model.set_grad_checkpointing()
    _compile(model, parallel)
    if mode == "ddp":
        places = [world.device] if world.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=places, gradient_as_bucket_view=True)
    if mode == "fsdp":
        if world.size > 1:
            for tensor in (*model.parameters(), *model.buffers()):
                dist.broadcast(tensor.detach(), src=0)
        _shard(model, parallel, world)
    return model


def fsdp_blocks(model: DualEncoder) -> Iterator[nn.Module]:
    """Yield the modules that are sharded one by one: those of each tower, and those of what else the model has."""
    towers = list(model.towers.values())
    for tower in towers:
        yield from tower.fsdp_blocks()
    for child in model.children():
        if not any(child is tower for tower in towers):
            yield from repeated_blocks(child)


def _compile(model: DualEncoder, parallel: Parallel) -> None:
    """Compile blocks, or towers and what else the model has, in place: `forward` and `encode_image` both call them."""
    if parallel.compile == "none":
        return
    for part in fsdp_blocks(model) if parallel.compile == "blocks" else model.children():
        if any(True for _ in part.parameters()):
            part.compile()  # pyright: ignore[reportUnknownMemberType]


def _shard(model: DualEncoder, parallel: Parallel, world: World) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    shard = parallel.shard or world.size
    shape, names = ((world.size,), ("shard",))
    if shard < world.size:
        shape, names = ((world.size // shard, shard), ("replicate", "shard"))
    mesh = init_device_mesh(world.device.type, shape, mesh_dim_names=names)
    for block in fsdp_blocks(model):
        if any(True for _ in block.parameters()):
            fully_shard(block, mesh=mesh, reshard_after_forward=parallel.reshard)
    fully_shard(model, mesh=mesh)
    for method in ("encode", "encode_image", "encode_text"):
        register_fsdp_forward_method(model, method)


def _memory_of(device: torch.device) -> int:
    """Return the bytes of memory that a process has for itself."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**33
    return total // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
