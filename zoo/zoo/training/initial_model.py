"""The model that a run begins with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from zoo.building.build import build_source
from zoo.building.source import resolve
from zoo.training.recipe.recipe import Recipe
from zoo.training.recipe.sections import Freeze, Init
from zoo_core.errors import ConfigError, Problem, one_of

if TYPE_CHECKING:
    from zoo_core.models.dual_encoder import DualEncoder

__all__ = ["freeze_batch_norms", "initial_model"]


def initial_model(recipe: Recipe) -> DualEncoder:
    """Return the model of a recipe in training mode, in float32, with what is not trained frozen.

    Raises:
        ConfigError: the loss does not go with the model, or a section names a modality that it has not.
        ZooError: the model cannot be built, as `zoo.build` has it.
    """
    torch.manual_seed(recipe.seed)  # pyright: ignore[reportUnknownMemberType]
    model = build_source(
        resolve(recipe.model),
        pretrained=recipe.init.pretrained,
        overrides=recipe.overrides,
        target={"dtype": torch.float32},
    )
    problems = list(_problems(recipe, model))
    if problems:
        raise ConfigError(problems)
    _set_scale(model, recipe.init)
    model.train()
    _freeze(model, recipe.freeze)
    return model


def freeze_batch_norms(model: nn.Module) -> None:
    """Have batch norms of a model in training mode use the running statistics that they have."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def _problems(recipe: Recipe, model: DualEncoder) -> Iterator[Problem]:
    chunks = recipe.batch.chunk if isinstance(recipe.batch.chunk, dict) else {}
    for section, names in (("freeze.towers", recipe.freeze.towers), ("batch.chunk", chunks)):
        for name in names:
            if name not in model.towers:
                yield Problem(f"the model has no modality '{name}'; {one_of(model.towers)}", f"{section}.{name}")
    kind = recipe.loss.component.rpartition("/")[2]
    if kind == "sigmoid" and model.logit_bias is None:
        fix = "init_logit_bias=-10"
        yield Problem(f"the sigmoid loss trains a logit bias, which the model has not; overrides: ['{fix}']", "loss")
    if kind == "contrastive" and model.logit_bias is not None:
        fix = "loss: {type: sigmoid}, or overrides: ['init_logit_bias=null']"
        yield Problem(f"the contrastive loss trains no logit bias, which the model has; {fix}", "loss")
    if kind == "coca" and model.tokenizer is not None:
        stated, padding = getattr(recipe.loss, "pad_id", None), model.tokenizer.pad_id
        if stated != padding:
            yield Problem(f"is {stated}, but the model's tokenizer pads with {padding}", "loss.pad_id")
    if kind == "distillation":
        what = "needs the features of a teacher, which a recipe cannot name; use zoo.loss in a loop of yours"
        yield Problem(what, "loss")


def _set_scale(model: DualEncoder, init: Init) -> None:
    with torch.no_grad():
        if init.logit_scale is not None:
            model.logit_scale.fill_(math.log(init.logit_scale))
        if init.logit_bias is not None:
            if model.logit_bias is None:
                raise ConfigError(Problem("the model has no logit bias", "init.logit_bias"))
            model.logit_bias.fill_(init.logit_bias)


def _freeze(model: DualEncoder, freeze: Freeze) -> None:
    for name, groups in freeze.towers.items():
        if groups != "none":
            unlocked = 0 if groups == "all" else groups
            options = {"freeze_norms": freeze.norms == "frozen", "freeze_bn_stats": True}
            model.lock_tower(name, unlocked, **options)
    if freeze.batch_norm == "frozen":
        freeze_batch_norms(model)
    if freeze.logit_scale == "frozen":
        model.logit_scale.requires_grad_(False)
        if model.logit_bias is not None:
            model.logit_bias.requires_grad_(False)
