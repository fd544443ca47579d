"""Chunks give the gradient of the whole batch, whatever the model draws at random, on any number of processes.

The whole batch is computed here with one graph over the same chunks, since dropout of other chunks would be another one.
All that two processes do is done by one pair of them, since starting them takes most of the time.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import zoo
from support.activations import ActivationMeter
from support.models.families import FAMILIES, Family, pictures, words
from support.peer import randomized
from zoo.training.gradients import chunks
from zoo.training.gradients.step import contrastive_step
from zoo_core.errors import InputError

BATCH, CHUNK, WORLD = 7, 3, 2
DROP = {"patch_dropout": 0.5}
LOSSES: dict[str, tuple[Family, Callable[[], Any]]] = {
    "contrastive": (FAMILIES["ViT CLIP"], lambda: zoo.loss("contrastive")),
    "sigmoid": (FAMILIES["CustomTextCLIP"], lambda: zoo.loss("sigmoid")),
    "coca": (FAMILIES["CoCa"], lambda: zoo.loss("coca", pad_id=0)),
}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-6}
# FSDP2 of torch 2.6 asks a CPU stream for an event, which it has not
SHARDS_ON_CPU = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 7)

Inputs = dict[str, Tensor]
Gradients = dict[str, Tensor]


def model_for(loss: str, dtype: torch.dtype = torch.float64) -> Any:
    """Return a model in training mode that drops half of its patches."""
    architecture = copy.deepcopy(LOSSES[loss][0].architecture)
    architecture["vision"] |= DROP
    return randomized(zoo.build(architecture)).to(dtype).train()


def batch_for(model: Any, rank: int = 0, count: int = BATCH) -> Inputs:
    return {"image": pictures(model, count, seed=rank).to(model.dtype), "text": words(model, count, seed=rank)}


def passes(joint: bool, sizes: dict[str, int], count: int) -> Iterator[dict[str, slice]]:
    """Yield which samples go through the model in which order."""
    parts = {name: [slice(start, start + size) for start in range(0, count, size)] for name, size in sizes.items()}
    if joint:
        yield from ({name: parts[name][index] for name in parts} for index in range(len(parts["image"])))
    else:
        yield from ({name: rows} for name in parts for rows in parts[name][:-1])
        yield {name: parts[name][-1] for name in parts}


def whole(loss: str, model: Any, batches: list[Inputs], sizes: dict[str, int]) -> tuple[float, Gradients]:
    """Return the loss of the batches of all processes, and its gradient, with one graph over all of it."""
    outputs: dict[str, list[Tensor]] = {}
    for rank, inputs in enumerate(batches):
        torch.manual_seed(rank)
        for rows in passes(loss == "coca", sizes, len(inputs["text"])):
            given = model(**{name: inputs[name][part] for name, part in rows.items()})
            names = ("image_features", "text_features", "logit_scale", "logit_bias")
            given = given if isinstance(given, dict) else dict(zip(names, given, strict=False))
            for name, value in given.items():
                if value is not None:
                    outputs.setdefault(name, []).append(value)
    both = {
        name: torch.cat(values) if values[0].ndim > 1 else values[0]
        for name, values in outputs.items()
        if name != "labels"
    }
    if loss == "coca":
        both["labels"] = torch.cat(outputs["labels"])
    value = LOSSES[loss][1]()(**both)
    value = sum(value) if isinstance(value, tuple) else value
    value.backward()
    return value.item(), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def in_chunks(
    loss: str, model: Any, inputs: Inputs, chunk: Any, rank: int = 0, **options: Any
) -> tuple[float, Gradients]:
    """Return the loss that a step in chunks reports, and the gradient that it leaves."""
    torch.manual_seed(rank)
    result = contrastive_step(model, LOSSES[loss][1](), inputs, chunk=chunk, **options)
    named = {name.removeprefix("module."): parameter.grad for name, parameter in model.named_parameters()}
    return result.loss.item(), {
        name: (grad.full_tensor() if hasattr(grad, "full_tensor") else grad).clone() for name, grad in named.items()
    }


def worst(given: Gradients, expected: Gradients) -> float:
    """Return the largest relative error of a parameter's gradient.

    The bias of keys has none but for rounding, so that a thousandth of the whole gradient is the least it is held to.
    """
    assert given.keys() == expected.keys()
    least = 1e-3 * torch.cat([value.flatten() for value in expected.values()]).norm()
    return max(((given[name] - value).norm() / max(value.norm(), least)).item() for name, value in expected.items())


CHUNKS = [3, 1, {"image": 2}, {"text": 2}, {"image": 2, "text": 5}]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    ("loss", "chunk"),
    [
        *itertools.product(("contrastive", "sigmoid"), CHUNKS),
        ("coca", 3),
        ("coca", 1),
    ],
    ids=str,
)
def test_chunks_give_the_gradient_of_the_whole_batch(loss: str, chunk: Any, dtype: torch.dtype) -> None:
    model = model_for(loss, dtype)
    inputs = batch_for(model)
    sizes = dict.fromkeys(inputs, BATCH) | (chunk if isinstance(chunk, dict) else dict.fromkeys(inputs, chunk))
    value, expected = whole(loss, copy.deepcopy(model), [inputs], sizes)
    given_value, given = in_chunks(loss, model, inputs, chunk)
    assert given_value == pytest.approx(value, rel=TOLERANCE[dtype])
    assert worst(given, expected) <= TOLERANCE[dtype]


@pytest.mark.parametrize("loss", LOSSES)
def test_without_the_same_random_numbers_the_gradient_is_another(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_for(loss)
    inputs = batch_for(model)
    _, expected = whole(loss, copy.deepcopy(model), [inputs], dict.fromkeys(inputs, CHUNK))
    monkeypatch.setattr(chunks.RandomState, "restore", lambda self: None)
    assert worst(in_chunks(loss, model, inputs, CHUNK)[1], expected) > 0.05


def test_a_step_in_chunks_draws_no_more_than_one_pass() -> None:
    model = model_for("contrastive")
    inputs = batch_for(model)
    in_chunks("contrastive", model, inputs, CHUNK)
    after = torch.rand(4)
    torch.manual_seed(0)
    for rows in passes(False, dict.fromkeys(inputs, CHUNK), BATCH):
        model(**{name: inputs[name][part] for name, part in rows.items()})
    assert torch.equal(after, torch.rand(4))


@pytest.mark.parametrize("chunk", [BATCH, BATCH + 5, {}, {"image": BATCH}])
def test_a_chunk_of_the_whole_batch_is_a_plain_step(chunk: Any) -> None:
    plain, ours = model_for("contrastive"), model_for("contrastive")
    inputs = batch_for(plain)
    value, expected = in_chunks("contrastive", plain, inputs, None)
    given_value, given = in_chunks("contrastive", ours, inputs, chunk)
    assert given_value == value
    for name, gradient in expected.items():
        assert torch.equal(given[name], gradient), name


@pytest.mark.parametrize("loss", LOSSES)
def test_ids_and_weights_are_those_of_the_whole_batch(loss: str) -> None:
    ids, weights = torch.tensor([0, 1, 2, 0, 1, 2, 3]), torch.rand(BATCH, dtype=torch.float64)
    values = []
    for chunk in (None, CHUNK):
        model = model_for(loss).eval()
        inputs = batch_for(model)
        values.append(in_chunks(loss, model, inputs, chunk, ids=ids, weights=weights))
    assert values[1][0] == pytest.approx(values[0][0], rel=1e-12)
    assert worst(values[1][1], values[0][1]) <= 1e-12


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_add_to_those_that_there_are_and_take_the_loss_scale(loss: str) -> None:
    model = model_for(loss)
    inputs = batch_for(model)
    value, once = in_chunks(loss, model, inputs, CHUNK)
    scaled_value, sums = in_chunks(loss, model, inputs, CHUNK, loss_scale=4.0)
    assert scaled_value == pytest.approx(value, rel=1e-12)
    assert worst(sums, {name: 5 * gradient for name, gradient in once.items()}) <= 1e-12


def test_half_precision_reaches_every_parameter() -> None:
    model, exact = model_for("contrastive", torch.float32), model_for("contrastive", torch.float32)
    inputs = batch_for(model)
    _, expected = in_chunks("contrastive", exact, inputs, CHUNK)
    _, given = in_chunks("contrastive", model, inputs, CHUNK, precision="bf16")
    assert {gradient.dtype for gradient in given.values()} == {torch.float32}
    total = torch.cat([gradient.flatten() for gradient in expected.values()])
    error = torch.cat([(given[name] - gradient).flatten() for name, gradient in expected.items()])
    assert 0 < error.norm() / total.norm() < 0.1


def test_half_precision_within_the_callers_autocast_reaches_every_parameter() -> None:
    model = model_for("contrastive", torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        in_chunks("contrastive", model, batch_for(model), CHUNK)
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.visual.parameters())


@pytest.mark.parametrize("loss", LOSSES)
def test_a_frozen_tower_passes_once(loss: str) -> None:
    model = model_for(loss)
    model.lock_image_tower()
    inputs = batch_for(model)
    _, expected = whole_of_trained(loss, copy.deepcopy(model), inputs)
    calls: list[int] = []
    model.visual.register_forward_hook(lambda module, args, output: calls.append(len(args[0])))
    torch.manual_seed(0)
    contrastive_step(model, LOSSES[loss][1](), inputs, chunk=CHUNK)
    given = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert worst(given, expected) <= 1e-12
    if loss != "coca":  # whose decoder reads the tokens of the image
        assert calls == [3, 3, 1, 1]


def whole_of_trained(loss: str, model: Any, inputs: Inputs) -> tuple[float, Gradients]:
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    value, gradients = whole(loss, model, [inputs], dict.fromkeys(inputs, CHUNK))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return value, {name: gradient for name, gradient in gradients.items() if name in trained}


def test_a_batch_in_chunks_keeps_no_more_activations_than_one_chunk() -> None:
    model = model_for("contrastive", torch.float32)
    kept = []
    for count, chunk in ((4, None), (32, 4), (32, None)):
        inputs = batch_for(model, count=count)
        with ActivationMeter(model, inputs.values()) as meter:
            in_chunks("contrastive", model, inputs, chunk)
        kept.append(meter.peak)
    assert kept[1] <= 1.15 * kept[0] < 0.25 * kept[2]


def test_images_as_patches_are_cut_along_their_samples() -> None:
    model = randomized(FAMILIES["timm NaFlex"].build()).double().eval()
    patches = torch.randn(BATCH, 6, 192, dtype=torch.float64)
    rows = torch.tensor([[row, column] for row in range(2) for column in range(3)])
    inputs: Any = {
        "image": {
            "patches": patches,
            "patch_coord": rows.expand(BATCH, -1, -1).clone(),
            "patch_valid": torch.ones(BATCH, 6, dtype=torch.bool),
        },
        "text": words(model, BATCH),
    }
    twin = copy.deepcopy(model)
    plain = contrastive_step(twin, zoo.loss("sigmoid"), inputs)
    given = contrastive_step(model, zoo.loss("sigmoid"), inputs, chunk=CHUNK)
    torch.testing.assert_close(given.loss, plain.loss)
    for (name, one), (_, two) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, msg=name)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "nothing": ("contrastive", {"chunk": 0}, "chunk: expected a number of samples of at least 1, found 0"),
    "another modality": (
        "contrastive",
        {"chunk": {"sound": 2}},
        "chunk: there are no inputs of 'sound'; allowed: image",
    ),
    "two sizes for captions": (
        "coca",
        {"chunk": {"image": 2, "text": 3}},
        "chunk: the loss CoCaLoss reads both inputs of a sample at once, found chunks of 2 of image and 3 of text",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_chunks_that_cannot_be_are_refused(case: str) -> None:
    loss, options, message = REFUSED[case]
    model = model_for(loss)
    with pytest.raises(InputError, match=message):
        contrastive_step(model, LOSSES[loss][1](), batch_for(model), **options)


def test_batches_of_unequal_length_are_refused() -> None:
    model = model_for("contrastive")
    inputs = batch_for(model) | {"text": words(model, 4)}
    with pytest.raises(InputError, match="expected as many samples of each modality, found 7 of image and 4 of text"):
        contrastive_step(model, zoo.loss("contrastive"), inputs, chunk=2)


def test_batch_norm_in_training_mode_is_refused() -> None:
    model = FAMILIES["ResNet CLIP"].build().train()
    inputs = {"image": pictures(model, 4), "text": words(model, 4)}
    with pytest.raises(InputError, match=r"chunk: 'visual.bn1' is a batch norm in training mode.*freeze.batch_norm"):
        contrastive_step(model, zoo.loss("contrastive"), inputs, chunk=2)
    model.lock_image_tower(freeze_bn_stats=True)
    contrastive_step(model, zoo.loss("contrastive"), inputs, chunk=2)


# Two processes


def wrapped(kind: str, model: Any) -> Any:
    if kind == "ddp":
        return DistributedDataParallel(model)
    from torch.distributed.fsdp import fully_shard

    for tower in model.towers.values():
        for block in tower.transformer.resblocks:
            fully_shard(block)
    return fully_shard(model)


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD)
    try:
        given = {}
        for kind in ("ddp", "fsdp") if SHARDS_ON_CPU else ("ddp",):
            for loss, dtype in itertools.product(LOSSES, TOLERANCE):
                model = model_for(loss, dtype)
                inputs = batch_for(model, rank)
                given[kind, loss, str(dtype)] = in_chunks(loss, wrapped(kind, model), inputs, CHUNK, rank)
        torch.save(given, Path(folder) / f"{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, tuple[float, Gradients]]]:
    """Return what each process has after a step in chunks, by how the model is shared, the loss and the dtype."""
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(worker, (str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


needs_shards = pytest.mark.skipif(not SHARDS_ON_CPU, reason="FSDP2 runs on the CPU from torch 2.7 on")


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", ["ddp", pytest.param("fsdp", marks=needs_shards)])
def test_two_processes_have_the_gradient_of_the_batches_of_both(
    of_processes: Any, kind: str, loss: str, dtype: torch.dtype
) -> None:
    model = model_for(loss, dtype)
    batches = [batch_for(model, rank) for rank in range(WORLD)]
    value, expected = whole(loss, model, batches, {"image": CHUNK, "text": CHUNK})
    for process in of_processes:
        given_value, given = process[kind, loss, str(dtype)]
        assert given_value == pytest.approx(value, rel=TOLERANCE[dtype])
        assert worst(given, expected) <= TOLERANCE[dtype]
