"""Steps of ours beside open_clip's own training loop: equal weights, data, optimizer and schedule give equal losses.

Both are told the same with their own words. Ours does not decay position embeddings, where open_clip does, so that here a
model names none.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from support.peer import captions, images, randomized, tiny_arguments
from zoo.training.gradients.clip import clip_gradients
from zoo.training.gradients.step import clamp_logit_scale, contrastive_step
from zoo.training.optimization.groups import parameter_groups
from zoo.training.optimization.optimizer import build_optimizer
from zoo.training.optimization.schedules import learning_rate_factor, set_learning_rates
from zoo.training.recipe.sections import Schedule
from zoo_core.config import OptimizerConfig, Section

BATCH, POOL, WARMUP = 16, 96, 5
LR, DECAY, CLIP, BETAS, EPS = 1e-3, 0.2, 1.0, (0.9, 0.98), 1e-6
TOLERANCE = 2e-5
POOLS = {"attn_pooler_queries": 5, "attn_pooler_heads": 4}
DECODER = {"width": 24, "heads": 2, "layers": 2}


def clip_pair() -> tuple[Any, Any, Any, Any]:
    from open_clip import CLIP
    from open_clip.loss import ClipLoss

    theirs = randomized(CLIP(**tiny_arguments(), output_dict=True))
    return zoo.CLIP(**tiny_arguments(), output_dict=True), theirs, zoo.loss("contrastive"), ClipLoss()


def siglip_pair() -> tuple[Any, Any, Any, Any]:
    from open_clip import CustomTextCLIP
    from open_clip.loss import SigLipLoss

    arguments = tiny_arguments(init_logit_bias=-10.0)
    theirs = randomized(CustomTextCLIP(**arguments, output_dict=True))
    return zoo.CustomTextCLIP(**arguments, output_dict=True), theirs, zoo.loss("sigmoid"), SigLipLoss()


def coca_pair() -> tuple[Any, Any, Any, Any]:
    from open_clip.coca_model import CoCa
    from open_clip.loss import CoCaLoss

    sizes = tiny_arguments()
    vision, text = sizes["vision_cfg"] | POOLS, sizes["text_cfg"]
    theirs = CoCa(
        embed_dim=24,
        multimodal_cfg=DECODER | {"context_length": 12, "vocab_size": text["vocab_size"]},
        text_cfg=text | {"embed_cls": True, "output_tokens": True},
        vision_cfg=vision | {"attentional_pool": True, "output_tokens": True},
    )
    towers = text | {"class_token": True, "pool_type": "last"}, vision | {"attentional_pool": "single"}
    ours, theirs = zoo.CoCa(24, DECODER, *towers), randomized(theirs)
    return ours, theirs, zoo.loss("coca", pad_id=0), CoCaLoss(caption_loss_weight=2.0, clip_loss_weight=1.0)


PAIRS = {"contrastive": clip_pair, "sigmoid": siglip_pair, "coca": coca_pair}


def batches(model: Any, steps: int) -> list[tuple[Tensor, Tensor]]:
    """Return batches of a pool of images and captions, each sample again and again."""
    pool = (images(model, POOL), captions(model, POOL))
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randperm(POOL, generator=generator)[:BATCH] for _ in range(steps)]
    return [(pool[0][rows], pool[1][rows]) for rows in drawn]


class Loader:
    """What open_clip's loop takes for its data, and for the writer of its metrics."""

    def __init__(self, given: list[tuple[Tensor, Tensor]]) -> None:
        self.given, self.losses = given, []
        self.dataloader, self.num_batches, self.num_samples = self, len(given), len(given) * BATCH

    def __iter__(self) -> Any:
        return iter(self.given)

    def set_epoch(self, epoch: int) -> None:
        pass

    def add_scalar(self, name: str, value: float, step: int) -> None:
        if name == "train/loss":
            self.losses.append(value)


def their_losses(model: Any, loss: Any, given: list[tuple[Tensor, Tensor]]) -> list[float]:
    """Train the peer with its own loop, and with the optimizer that its `main` makes."""
    from open_clip_train.scheduler import cosine_lr
    from open_clip_train.train import train_one_epoch

    named = list(model.named_parameters())
    plain = [p for n, p in named if p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n]
    rest = [parameter for _, parameter in named if all(parameter is not other for other in plain)]
    optimizer = torch.optim.AdamW(
        [{"params": plain, "weight_decay": 0.0}, {"params": rest, "weight_decay": DECAY}], lr=LR, betas=BETAS, eps=EPS
    )
    options = SimpleNamespace(
        device="cpu", precision="fp32", distill=False, accum_freq=1, skip_scheduler=False, grad_clip_norm=CLIP,
        log_every_n_steps=1, horovod=False, wandb=False, rank=0, local_rank=0, log_local=False, world_size=1,
        batch_size=BATCH,
    )  # fmt: skip
    loader = Loader(given)
    scheduler = cosine_lr(optimizer, LR, WARMUP, len(given))
    train_one_epoch(model, {"train": loader}, loss, 0, optimizer, None, scheduler, None, options, tb_writer=loader)
    return loader.losses


def our_losses(model: Any, loss: Any, given: list[tuple[Tensor, Tensor]]) -> list[float]:
    keys = {"lr": LR, "weight_decay": DECAY, "betas": list(BETAS), "eps": EPS}
    config = Section(OptimizerConfig, "adamw").parse(keys, "optimizer", zoo.registry())
    optimizer = build_optimizer(config, model, zoo.registry())
    schedule = Schedule(steps=len(given), warmup=WARMUP)
    losses: list[float] = []
    model.train()
    for step, (image, text) in enumerate(given):
        set_learning_rates(optimizer, learning_rate_factor(schedule, step, len(given)))
        optimizer.zero_grad()
        losses.append(contrastive_step(model, loss, {"image": image, "text": text}).loss.item())
        clip_gradients(model, CLIP)
        optimizer.step()
        clamp_logit_scale(model, 1.0, 100.0)
    return losses


@pytest.mark.parametrize("steps", [20, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("loss", PAIRS)
def test_losses_are_those_of_open_clip_step_by_step(loss: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs, our_loss, their_loss = PAIRS[loss]()
    ours.load_state_dict(theirs.state_dict())
    monkeypatch.setattr(type(ours), "no_weight_decay", lambda self: set())
    given = batches(ours, steps)
    expected = their_losses(theirs, their_loss, given)
    losses = our_losses(ours, our_loss, given)
    assert len(losses) == len(expected) == steps
    assert max(abs(one - other) for one, other in zip(losses, expected, strict=True)) <= TOLERANCE
    assert losses[-1] < losses[0] - 0.2


def test_decay_differs_from_that_of_open_clip_in_what_towers_name_alone() -> None:
    ours, theirs, *_ = clip_pair()
    config = OptimizerConfig(type="any", weight_decay=DECAY)
    decayed = {name for group in parameter_groups(ours, config) if group["weight_decay"] for name in group["names"]}
    named = list(theirs.named_parameters())
    rest = {n for n, p in named if not (p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n)}
    published = {name.removeprefix("text.").replace("in_proj.weight", "in_proj_weight") for name in decayed}
    assert rest - published == {"positional_embedding", "visual.positional_embedding"}
    assert published <= rest
