"""Recipes: strict data, of which each fault is named with its key before anything is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.training import tiny_recipe, write_recipe
from zoo.training.recipe.load import read_recipe
from zoo_core.errors import ZooError


@pytest.mark.parametrize("name", ["clip-from-scratch", "siglip-from-scratch"])
def test_a_shipped_recipe_is_whole_with_data_and_steps(name: str) -> None:
    recipe = read_recipe(name, ["data.train={type: folder, path: pairs}", "schedule.steps=10"])
    assert recipe.schedule.steps == 10 and read_recipe(recipe.data()) == recipe


def test_a_recipe_extends_another_and_overrides_come_last(tmp_path: Path) -> None:
    write_recipe(tmp_path / "base.yaml", tiny_recipe(Path("pairs")))
    write_recipe(tmp_path / "long.yaml", {"extends": "base.yaml", "schedule": {"steps": 9}, "seed": 4})
    recipe = read_recipe(tmp_path / "long.yaml", ["seed=5"])
    assert (recipe.schedule.steps, recipe.schedule.warmup, recipe.seed, recipe.batch.size) == (9, 2, 5, 4)


def test_an_error_names_file_line_and_key(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "recipe.yaml", tiny_recipe(Path("pairs"), batch={"size": 0}))
    line = 1 + path.read_text().splitlines().index("  size: 0")
    with pytest.raises(ZooError, match=rf"recipe\.yaml:{line}.*batch\.size"):
        read_recipe(path)


WRONG = {
    "batch.size=0": "batch.size",
    "batch.size=four": "batch.size",
    "batch.chunk=9": "more than the batch of 4",
    "batch.chunk={image: 9}": "more than the batch of 4",
    "batch.sise=4": "size",
    "schedule.samples=24": "state one of steps, samples and epochs, found steps and samples",
    "schedule.steps=null": "state one of steps, samples and epochs, found none of them",
    "schedule.steps=0": "schedule.steps",
    "schedule.type=cosinus": "cosine",
    "schedule.warmup=-1": "schedule.warmup",
    "schedule.cooldown=2": "schedule.cooldown",
    "schedule.end=-0.1": "schedule.end",
    "optimizer.lr=0": "optimizer.lr",
    "optimizer.lr=-1": "optimizer.lr",
    "optimizer.type=adamv": "adamw",
    "optimizer.betas=[0.9,1.0]": "optimizer.betas",
    "optimizer.clip=0": "optimizer.clip",
    "optimizer.layer_decay={image: 2}": "optimizer.layer_decay",
    "optimizer={type: sgd, momentum: 0, nesterov: true}": "needs a momentum above 0",
    "optimizer={type: timm}": "optimizer.name",
    "optimizer={type: timm, name: lamb, kwargs: {lr: 1}}": "optimizer.lr sets it",
    "loss.type=contrastiv": "contrastive",
    "precision=fp64": "precision",
    "seed=-1": "seed",
    "ema={decay: 1.0}": "ema.decay",
    "evaluate.use=ema": "has no section ema",
    "evaluate.every=2": "has nothing to measure",
    "keep.best={metric: validation/loss}": "nothing is measured",
    "keep.last=1": "keep.last",
    "keep.steps=0": "keep.steps",
    "log.every=0": "log.every",
    "log.to=[{type: tensorbored}]": "tensorboard",
    "stop.nonfinite=0": "stop.nonfinite",
    "scale={min: 10, max: 5}": "is below min, 10",
    "scale.max=0": "scale.max",
    "parallel.mode=dpp": "ddp",
    "parallel.shard=0": "parallel.shard",
    "parallel.timeout=0": "parallel.timeout",
    "parallel.compile=yes": "parallel.compile",
    "freeze.towers={image: some}": "freeze.towers",
    "init.logit_scale=0": "init.logit_scale",
    "data.train=[]": "data.train",
    "data.train.type=foldr": "folder",
    "data.workers=-1": "data.workers",
    "data.workers=many": "data.workers",
    "data.shuffle=yes": "data.shuffle",
    "data.bad_samples.limit=2": "data.bad_samples.limit",
    "data.filter.min_size=0": "data.filter.min_size",
    "data.filter.max_aspect=0.5": "data.filter.max_aspect",
    "date.workers=1": "data",
}


@pytest.mark.parametrize("override", WRONG)
def test_a_wrong_recipe_is_refused_by_its_key(override: str) -> None:
    recipe = tiny_recipe(Path("pairs"))
    with pytest.raises(ZooError) as caught:
        read_recipe(recipe, [override])
    assert WRONG[override] in str(caught.value)
