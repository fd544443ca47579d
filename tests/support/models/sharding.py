"""What two processes do with every family under FSDP2: one pair of them for all, since starting them takes most of the time.

They meet through a file, so that no port is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.fsdp import fully_shard

from support.models.behaviours import loss_of, modules_of
from support.models.families import FAMILIES, model_of, pictures, words

WORLD = 2
FULL = StateDictOptions(full_state_dict=True)
FROM_FIRST = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)


def other(name: str) -> Any:
    """Return a model with weights that no other model here has."""
    return FAMILIES[name].build(seed=1)


def step(model: Any) -> None:
    """Take one step of SGD on a batch that every process has."""
    model.output_dict = True
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    loss_of(model(pictures(model), words(model))).backward()
    optimizer.step()


@torch.no_grad()
def features(model: Any) -> dict[str, Tensor]:
    """Return the features that a model gives."""
    model.output_dict = True
    found = model(pictures(model), words(model))
    return {key: found[key] for key in ("image_features", "text_features")}


def sharded(name: str) -> Any:
    """Return a model whose blocks are sharded one by one, and the rest with the model."""
    model = model_of(name)
    for block in _blocks(name, model):
        if any(True for _ in block.parameters()):
            fully_shard(block)
    fully_shard(model)
    return model


def _blocks(name: str, model: Any) -> Iterator[nn.Module]:
    yield from modules_of(model.visual, FAMILIES[name].vision)
    yield from modules_of(model.text, FAMILIES[name].text)
    decoder = getattr(model, "text_decoder", None)
    if decoder is not None:
        yield from (*decoder.resblocks, *decoder.cross_attn)


def _gathered(model: Any) -> dict[str, Tensor]:
    """Return a copy of the whole state dict."""
    return {key: value.clone() for key, value in get_model_state_dict(model, options=FULL).items()}


def _work(name: str) -> dict[str, dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = {}
    model = sharded(name)
    step(model)
    found["sharded_step"] = _gathered(model)
    set_model_state_dict(model, other(name).state_dict(), options=FULL)
    found["sharded_state"] = _gathered(model)
    found["outputs"] = features(model)
    copied = sharded(name)
    set_model_state_dict(copied, get_model_state_dict(model))
    found["sharded_copy"] = _gathered(copied)
    handed = sharded(name)
    set_model_state_dict(handed, other(name).own_state_dict() if dist.get_rank() == 0 else {}, options=FROM_FIRST)
    found["handed"] = _gathered(handed)
    return found


def _process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD)
    try:
        torch.save({name: _work(name) for name in FAMILIES}, Path(folder) / f"{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


def run(folder: Path) -> list[dict[str, dict[str, dict[str, Tensor]]]]:
    """Return what each process found, by family and then by what it did."""
    mp.spawn(_process, (str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]
