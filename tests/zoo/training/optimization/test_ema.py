"""The average of the weights against a loop in float64, and what it does to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from support.models.families import model_of, pictures, words
from zoo.training.optimization.ema import Ema
from zoo_core.errors import CheckpointError

DECAY = 0.9
SHARDS_ON_CPU = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 7)


def change(model: Any, step: int) -> None:
    """Add numbers to the weights as a step would."""
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in model.parameters():
            drawn = 0.1 * torch.randn(parameter.shape, generator=generator)
            if hasattr(parameter, "full_tensor"):
                from torch.distributed.tensor import distribute_tensor

                drawn = distribute_tensor(drawn, parameter.device_mesh, parameter.placements)
            parameter.add_(drawn)


def reference(steps: int, start: int) -> dict[str, Tensor]:
    """Return the average as a loop in float64 gives it."""
    model = model_of("ViT CLIP")
    averages = {name: value.detach().double() for name, value in model.named_parameters()}
    for step in range(1, steps + 1):
        change(model, step)
        for name, value in model.named_parameters():
            decay = DECAY if step > start else 0.0
            averages[name] = decay * averages[name] + (1 - decay) * value.detach().double()
    return averages


@pytest.mark.parametrize("start", [0, 3, 10])
def test_the_average_is_that_of_a_loop_in_float64(start: int) -> None:
    model = model_of("ViT CLIP")
    ema = Ema(model, DECAY, start)
    for step in range(1, 9):
        change(model, step)
        ema.update(step)
    for name, value in reference(8, start).items():
        torch.testing.assert_close(ema.state_dict()[name].double(), value, rtol=1e-5, atol=1e-6, msg=name)


def test_a_block_has_the_average_in_the_model_and_the_weights_come_back() -> None:
    model = model_of("ViT CLIP").train()
    ema = Ema(model, DECAY)
    change(model, 1)
    ema.update(1)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    averages = {name: value.clone() for name, value in ema.state_dict().items()}
    with pytest.raises(RuntimeError, match="evaluation"), ema.swapped():
        for name, value in model.named_parameters():
            assert torch.equal(value, averages[name])
        raise RuntimeError("evaluation")
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name])
        assert torch.equal(ema.state_dict()[name], averages[name])


def test_a_saved_average_goes_on_bit_for_bit() -> None:
    model, other = model_of("ViT CLIP"), model_of("ViT CLIP")
    ema = Ema(model, DECAY)
    for step in (1, 2):
        change(model, step)
        ema.update(step)
    resumed = Ema(other, DECAY)
    resumed.load_state_dict({name: value.clone() for name, value in ema.state_dict().items()})
    other.load_state_dict(model.state_dict())
    for one, average in ((model, ema), (other, resumed)):
        change(one, 3)
        average.update(3)
    for name, value in ema.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])


def test_running_statistics_are_averaged_and_frozen_parameters_left_out() -> None:
    model = model_of("ResNet CLIP").train()
    model.lock_text_tower()
    ema = Ema(model, DECAY)
    names = ema.state_dict().keys()
    assert "visual.bn1.running_mean" in names and "visual.bn1.weight" in names
    assert not any(name.startswith("text.") for name in names)
    start = model.visual.bn1.running_mean.clone()
    model.encode_image(pictures(model))
    ema.update(1)
    expected = DECAY * start + (1 - DECAY) * model.visual.bn1.running_mean
    torch.testing.assert_close(ema.state_dict()["visual.bn1.running_mean"], expected)
    assert ema.state_dict()["visual.bn1.num_batches_tracked"] == model.visual.bn1.num_batches_tracked


REFUSED = {
    "a name too few": (lambda state: state.pop("logit_scale"), "'logit_scale' is missing"),
    "a name too many": (lambda state: state.update(other=torch.zeros(1)), "'other' is none of the model's"),
    "another shape": (
        lambda state: state.update(logit_scale=torch.zeros(2)),
        r"'logit_scale' has another shape: expected \[1\], found \[2\]",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_average_of_something_else_is_refused_and_nothing_changes(case: str) -> None:
    spoil, message = REFUSED[case]
    ema = Ema(model_of("ViT CLIP"), DECAY)
    before = {name: value.clone() for name, value in ema.state_dict().items()}
    state = {name: value + 1 for name, value in ema.state_dict().items()}
    spoil(state)
    with pytest.raises(CheckpointError, match=message):
        ema.load_state_dict(state)
    for name, value in before.items():
        assert torch.equal(ema.state_dict()[name], value)


def worker(rank: int, folder: str) -> None:
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    try:
        model = model_of("ViT CLIP").train()
        for block in (*model.visual.transformer.resblocks, *model.text.transformer.resblocks):
            fully_shard(block)
        fully_shard(model)
        ema = Ema(model, DECAY)
        for step in (1, 2):
            change(model, step)
            ema.update(step)
        inputs = {"image": pictures(model), "text": words(model)}
        found = {"average": {name: value.full_tensor() for name, value in ema.state_dict().items()}}
        with torch.no_grad():
            found["before"] = features(model, inputs)
            with ema.swapped():
                found["swapped"] = features(model, inputs)
            found["after"] = features(model, inputs)
        whole = {name: value.clone() for name, value in found["average"].items()}
        resumed = Ema(model, DECAY)
        resumed.load_state_dict(whole)
        found["loaded"] = {name: value.full_tensor() for name, value in resumed.state_dict().items()}
        torch.save(found, Path(folder) / f"{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


def features(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    output = model(**inputs)
    return output[0] if isinstance(output, tuple) else output["image_features"]


@pytest.mark.skipif(not SHARDS_ON_CPU, reason="FSDP2 runs on the CPU from torch 2.7 on")
def test_shards_are_averaged_and_swapped_as_the_whole_is(tmp_path: Path) -> None:
    mp.spawn(worker, (str(tmp_path),), nprocs=2)
    model = model_of("ViT CLIP").train()
    inputs = {"image": pictures(model), "text": words(model)}
    expected = reference(2, 0)
    with torch.no_grad():
        for step in (1, 2):
            change(model, step)
        before = features(model, inputs)
        for name, parameter in model.named_parameters():
            parameter.copy_(expected[name])
        average = features(model, inputs)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, value in expected.items():
            torch.testing.assert_close(found["average"][name].double(), value, rtol=1e-5, atol=1e-6)
            assert torch.equal(found["loaded"][name], found["average"][name])
        torch.testing.assert_close(found["before"], before)
        torch.testing.assert_close(found["swapped"], average)
        assert torch.equal(found["after"], found["before"])
