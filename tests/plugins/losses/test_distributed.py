"""Four processes: every loss is that of one process with the whole batch, in value and, averaged, in gradients.

The processes are started once, since that takes most of the time, and each finds all there is to find: as a group of
four, and as the two groups of ranks 1 and 3 and of rank 2 alone. What they find is compared here.
"""

from __future__ import annotations

import importlib.util
import warnings
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import zoo
from support.loss_references import ARGUMENTS, OPTIONS, ROWS, arguments, drawn, gradients, reference
from zoo import ClipLoss
from zoo_core.errors import InputError

WORLD = 4
GROUPS = {4: [0, 1, 2, 3], 2: [1, 3], 1: [2]}
SPLITS = {"even": [3, 3, 3, 3], "uneven": [1, 5, 2, 3]}
CASES = list(product(ARGUMENTS, GROUPS, SPLITS, [True, False], [None, 2]))
"""Loss, processes, split, with ids, chunk size."""


def is_weighted(case: tuple[Any, ...]) -> bool:
    """Tell whether the pairs of a case have weights: half of the cases of losses that take them."""
    name, _, split, *_ = case
    return split == "uneven" and name != "distillation"


def sizes_of(processes: int, split: str) -> list[int]:
    return SPLITS[split][:processes]


def shard_of(batch: dict[str, Tensor], sizes: list[int], rank: int) -> dict[str, Tensor]:
    rows = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    return {key: one[rows] if key in ROWS else one for key, one in batch.items()}


def loss_of(name: str, **options: Any) -> Any:
    loss_class = type(zoo.loss(name, **OPTIONS[name]))
    return loss_class(**OPTIONS[name], **options)


def total(found: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(found.values())).sum()


def run_case(group: Any, processes: int, case: tuple[Any, ...]) -> dict[str, Any]:
    """Return value and gradients of this process's part of a batch."""
    name, _, split, ids, chunk_size = case
    sizes = sizes_of(processes, split)
    given = arguments(
        name, shard_of(drawn(sum(sizes)), sizes, dist.get_rank(group)), ids=ids, weights=is_weighted(case)
    )
    value = total(loss_of(name, chunk_size=chunk_size, group=group)(**given, output_dict=True))
    return {"value": value.detach(), "gradients": gradients(value, given)}


def refusals(rank: int) -> dict[str, str]:
    """Return what each process is told about batches that do not go together."""
    batches = {
        "empty": torch.ones((2, 0, 1, 3)[rank], 6),
        "widths": torch.ones(2, 6 if rank else 5),
        "dtypes": torch.ones(2, 6, dtype=torch.float64 if rank == 3 else torch.float32),
        "ids": torch.ones(2, 6),
    }
    found = {
        name: refusal(ClipLoss(), one, torch.arange(2) if (name, rank) == ("ids", 1) else None)
        for name, one in batches.items()
    }
    weights = torch.ones(2) if rank == 3 else None
    found["weights"] = refusal(ClipLoss(), torch.ones(2, 6), weights=weights)
    teacher = loss_of("distillation")
    student, taught = torch.ones(2, 6), torch.ones(1 + rank, 6)
    try:
        teacher(student, student, torch.ones(()), taught, taught, torch.ones(()))
    except InputError as error:
        found["teacher"] = str(error)
    return found


def refusal(loss: Any, features: Tensor, ids: Tensor | None = None, weights: Tensor | None = None) -> str:
    try:
        loss(features, features, torch.ones((), dtype=features.dtype), ids=ids, weights=weights)
    except InputError as error:
        return str(error)
    return "no error"


class Towers(nn.Module):
    """Two linear towers, with a bias that the contrastive loss cannot feel."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        for name, shape in {"image": (6, 4), "text": (6, 4), "logit_scale": (1,), "logit_bias": (1,)}.items():
            drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
            self.register_parameter(name, nn.Parameter(drawn))

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, ...]:
        return images @ self.image, texts @ self.text, self.logit_scale.exp(), self.logit_bias


def train(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights after two steps."""
    for _ in range(2):
        model.zero_grad()
        ClipLoss()(*model(batch["image_features"], batch["text_features"]), ids=batch["ids"]).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
    return {name.removeprefix("module."): one.detach() for name, one in model.named_parameters()}


def run_ddp(rank: int) -> dict[str, Tensor]:
    sizes = SPLITS["uneven"]
    return train(DistributedDataParallel(Towers()), shard_of(drawn(sum(sizes)), sizes, rank))


def run_half(rank: int) -> dict[str, Tensor]:
    """Return the value of features in bfloat16 under autocast, and their gradient."""
    shard = shard_of(drawn(12), SPLITS["even"], rank)
    images, texts = (shard[f"{side}_features"].bfloat16().requires_grad_() for side in ("image", "text"))
    with torch.autocast("cpu", torch.bfloat16):
        value = ClipLoss()(images, texts, torch.tensor(9.0))
        value.backward()
    return {"value": value.detach(), "image": images.grad, "text": texts.grad}


TOLD: dict[str, tuple[str, dict[str, Any]]] = {
    "gathered": ("contrastive", {"gather_with_grad": True}),
    "local": ("contrastive", {"local_loss": True, "gather_with_grad": True}),
    **{one: ("sigmoid", {"dist_impl": one}) for one in ("bidir", "shift", "gather")},
}
"""Losses as open_clip is told of processes."""


def peer_losses() -> Any:
    """Return the peer's module of losses, without the rest of it, which four processes would import for seconds."""
    package = importlib.util.find_spec("open_clip")
    assert package is not None and package.origin is not None
    spec = importlib.util.spec_from_file_location("peer_losses", Path(package.origin).with_name("loss.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_told(rank: int) -> dict[str, list[dict[str, Tensor]]]:
    """Return value and gradients, averaged over processes, of the peer's losses and of ours, told the same."""
    peer = peer_losses()
    batch = shard_of(drawn(12), SPLITS["even"], rank)
    found: dict[str, list[dict[str, Tensor]]] = {}
    for case, (name, options) in TOLD.items():
        theirs = peer.ClipLoss if name == "contrastive" else peer.SigLipLoss
        found[case] = []
        for loss_class in (theirs, type(zoo.loss(name))):
            towers = Towers()
            value = loss_class(**options, rank=rank, world_size=WORLD)(
                *towers(batch["image_features"], batch["text_features"])
            )
            value.backward()
            averaged = {"value": value.detach()} | {key: one.grad for key, one in towers.named_parameters()}
            for one in averaged.values():
                dist.all_reduce(one)
                one /= WORLD
            found[case].append(averaged)
    return found


def told_wrong(rank: int) -> dict[str, str]:
    """Return what processes are told about flags that are not theirs, or that would train another model."""
    features = torch.ones(2, 6)
    return {
        "world": refusal(ClipLoss(world_size=2, gather_with_grad=True), features),
        "alone": refusal(zoo.SigLipLoss(world_size=1), features),
        "rank": refusal(ClipLoss(rank=(rank + 1) % WORLD, gather_with_grad=True), features),
        "flag": refusal(ClipLoss(gather_with_grad=False), features),
        "peer's default": refusal(ClipLoss(local_loss=True), features),
    }


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=WORLD, timeout=timedelta(seconds=60))
    groups = {len(ranks): dist.new_group(ranks) for ranks in GROUPS.values() if len(ranks) < WORLD}
    groups[WORLD] = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = {str(case): run_case(groups[case[1]], case[1], case) for case in CASES if rank in GROUPS[case[1]]}
            extra = {"refusals": refusals(rank), "half": run_half(rank)}
            if rank == 0:
                extra["stranger"] = refusal(ClipLoss(group=groups[2]), torch.ones(2, 6))
        extra |= {"ddp": run_ddp(rank), "told": run_told(rank), "told wrong": told_wrong(rank)}
        torch.save(found | extra, Path(folder) / f"{rank}.pt")
        dist.barrier()  # without it gloo now and then aborts a process that leaves first
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return what each process found."""
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(worker, (str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_loss_and_averaged_gradients_are_those_of_one_process(found: list[Any], case: tuple[Any, ...]) -> None:
    name, processes, split, ids, _ = case
    of_each = [found[rank][str(case)] for rank in GROUPS[processes]]
    given = arguments(name, drawn(sum(sizes_of(processes, split))), ids=ids, weights=is_weighted(case))
    value = reference(name, given)
    for one in of_each:
        torch.testing.assert_close(one["value"], value.detach(), rtol=0, atol=1e-10)
    for key, expected in gradients(value, given).items():
        parts = [one["gradients"][key] for one in of_each]
        averaged = (torch.cat(parts) if key in ROWS else torch.stack(parts).sum(dim=0)) / processes
        torch.testing.assert_close(averaged, expected, rtol=0, atol=1e-10, msg=lambda text, key=key: f"{key}: {text}")


def test_the_value_is_the_same_to_the_last_bit_on_every_process(found: list[Any]) -> None:
    for case in CASES:
        values = [found[rank][str(case)]["value"] for rank in GROUPS[case[1]]]
        assert all(torch.equal(value, values[0]) for value in values), case


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty", "expected at least one pair on every rank, found batches of [2, 0, 1, 3]"),
        ("widths", "expected the same feature widths on every rank, found [5, 6, 6, 6]"),
        (
            "dtypes",
            "expected the same dtypes on every rank, found [torch.float32, torch.float32, torch.float32, torch.float64]",
        ),
        ("ids", "expected ids on every rank or on none, found them on ranks [1] alone"),
        ("weights", "expected weights on every rank or on none, found them on ranks [3] alone"),
        (
            "teacher",
            "expected as many pairs of the teacher as of the student, found [1, 2, 3, 4] beside [2, 2, 2, 2]",
        ),
    ],
)
def test_batches_that_do_not_go_together_are_refused_on_every_process(
    found: list[Any], name: str, message: str
) -> None:
    assert [one["refusals"][name] for one in found] == [message] * WORLD


def test_a_process_outside_the_group_is_told_so(found: list[Any]) -> None:
    assert found[0]["stranger"] == (
        "this process is no member of the loss's process group, and so cannot share its batch"
    )


def test_ddp_trains_as_one_process_even_with_batches_of_different_sizes(found: list[Any]) -> None:
    expected = train(Towers(), drawn(sum(SPLITS["uneven"])))
    for one in found:
        torch.testing.assert_close(one["ddp"], expected, rtol=0, atol=1e-10)


def test_half_precision_is_gathered_as_it_is_and_computed_in_float32(found: list[Any]) -> None:
    batch = drawn(12)
    images, texts = (batch[f"{side}_features"].bfloat16().requires_grad_() for side in ("image", "text"))
    value = ClipLoss()(images, texts, torch.tensor(9.0))
    value.backward()
    for one in found:
        torch.testing.assert_close(one["half"]["value"], value.detach(), rtol=0, atol=1e-6)
    for side, features in (("image", images), ("text", texts)):
        averaged = torch.cat([one["half"][side] for one in found]) / WORLD
        torch.testing.assert_close(averaged, features.grad, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("case", TOLD)
def test_what_the_peer_is_told_of_processes_trains_the_same_model_here(found: list[Any], case: str) -> None:
    for one in found:
        theirs, ours = one["told"][case]
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("world", "world_size=2, but 4 processes would share the batch; leave it out, or give group="),
        ("alone", "world_size=1, but 4 processes would share the batch; leave it out, or give group="),
        ("rank", "rank={next}, but this is process {rank} of 4; leave it out"),
        *((name, "gather_with_grad=False, open_clip's default, leaves out") for name in ("flag", "peer's default")),
    ],
)
def test_what_processes_are_told_wrong_of_each_other_is_refused(found: list[Any], name: str, message: str) -> None:
    for rank, one in enumerate(found):
        assert one["told wrong"][name].startswith(message.format(rank=rank, next=(rank + 1) % WORLD))
