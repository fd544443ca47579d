"""Preparation of a run, before its first step."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from zoo._version import __version__
from zoo.catalog.architectures import registry
from zoo.training.checkpoints.store import Checkpoints
from zoo.training.data.loader import Loader
from zoo.training.data.open import TrainingData, open_data
from zoo.training.evaluation import Evaluation
from zoo.training.initial_model import initial_model
from zoo.training.optimization.ema import Ema
from zoo.training.optimization.loss_scaler import LossScaler
from zoo.training.optimization.optimizer import build_optimizer
from zoo.training.optimization.schedules import learning_rate_factor
from zoo.training.parallel.watchdog import PROCESSES, Watchdog
from zoo.training.parallel.world import World, start_world
from zoo.training.parallel.wrap import choose_mode, wrap
from zoo.training.recipe.compare import RECIPE, expect_same_recipe, recipe_digest, write_recipe
from zoo.training.recipe.load import read_recipe
from zoo.training.recipe.recipe import Recipe
from zoo.training.record.dispatch import Listener, build_callbacks
from zoo.training.record.recorder import Recorder
from zoo.training.run import Run
from zoo_core.boundary import checked
from zoo_core.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    InputError,
    Problem,
    SaveError,
    ZooWarning,
    warn_caller,
)
from zoo_core.files.atomic import SCRATCH

if TYPE_CHECKING:
    from zoo_core.models.dual_encoder import DualEncoder
    from zoo_core.training import Callback, Evaluator

__all__ = ["prepare"]

CHECKPOINTS = "checkpoints"
MODEL = "model"


@checked
def prepare(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    *,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    resume: str | Path = "auto",
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Return a run that is ready for its next step: validated, built, and gone on with if it began before.

    Args:
        recipe: a YAML file, the name of a recipe, a mapping, or a recipe.
        overrides: `"key.path=value"` changes of it.
        out: the folder of the run; below `runs/`, with the name of the recipe, where None.
        resume: `auto` goes on where the folder is, `never` wants a folder without a run, and a path names a checkpoint
            to go on from, of a run of any folder.
        callbacks: told of the run, beside those of the recipe.

    Raises:
        ConfigError: the recipe is wrong; every problem is named with its file, line and key.
        DataError: the data cannot be used, or is not what the run began with.
        InputError: the folder holds a run of another recipe.
        CheckpointError: the checkpoint to go on from is damaged or of another model.
        ZooError: the model cannot be built, as `zoo.build` has it.
    """
    read = read_recipe(recipe, overrides)
    folder = Path(out) if out is not None else _folder_of(recipe)
    with ExitStack() as resources:
        if read.deterministic:
            _be_deterministic(resources)
        world = resources.enter_context(start_world(timeout=read.parallel.timeout))
        _check_folder(folder, read, str(resume), world)
        model = initial_model(read).to(world.device)
        run = _assembled(read, folder, world, model, callbacks, resources)
        _go_on(run, resume)
        if world.is_first:
            write_recipe(folder, read)
            run.recorder.on_start(read.data(), run.done)
        world.barrier()
        run.resources = resources.pop_all()
    return run


def _assembled(
    recipe: Recipe,
    folder: Path,
    world: World,
    model: DualEncoder,
    callbacks: Sequence[Callback],
    resources: ExitStack,
) -> Run:
    components = registry()
    assert model.config is not None
    data = open_data(recipe.datasets, model=model.config, batch=recipe.batch.size, seed=recipe.seed)
    steps = _steps(recipe, data)
    learning_rate_factor(recipe.schedule, 0, steps)  # which refuses lengths that do not fit
    mode, _ = choose_mode(model, recipe.parallel, world)
    module = wrap(model, recipe.parallel, world, mode)
    loader = Loader(
        data,
        steps=steps,
        rank=world.rank,
        count=world.size,
        workers=recipe.datasets.workers,
        prefetch=recipe.datasets.prefetch,
        device=world.device,
    )
    listeners = [*build_callbacks(recipe.log.to, components), *map(Listener.of, callbacks)] if world.is_first else []
    recorder = Recorder(folder, listeners)
    checkpoints = Checkpoints(folder / CHECKPOINTS, world, recipe.keep, announce=recorder.on_save, report=_warn)
    resources.callback(checkpoints.close)
    return Run(
        recipe=recipe,
        folder=folder,
        world=world,
        model=model,
        module=module,
        data=data,
        loader=loader,
        loss=components.get("loss", recipe.loss.component).build(recipe.loss),
        optimizer=build_optimizer(recipe.optimizer, module, components),
        evaluation=_evaluation(recipe, world, model),
        checkpoints=checkpoints,
        recorder=recorder,
        watchdog=resources.enter_context(Watchdog(folder, world, timeout=recipe.parallel.timeout)),
        resources=resources,
        steps=steps,
        facts=_facts(recipe, data),
        ema=None if recipe.ema is None else Ema(module, recipe.ema.decay, recipe.ema.start),
        scaler=LossScaler() if recipe.precision == "fp16" else None,
    )


def _evaluation(recipe: Recipe, world: World, model: DualEncoder) -> Evaluation:
    evaluators: dict[str, Evaluator] = {}
    for place, config in enumerate(recipe.evaluate.evaluators):
        name = config.name or config.component
        if name in (*evaluators, "validation"):
            key = f"evaluate.evaluators.{place}.name"
            raise ConfigError(Problem(f"'{name}' names other metrics already; set a name of its own", key))
        evaluators[name] = registry().get("evaluator", config.component).build(config)
    pairs = None
    if recipe.datasets.validation is not None:
        assert model.config is not None
        pairs = open_data(recipe.datasets, model=model.config, batch=recipe.batch.size, part="validation")
        if pairs.batch % world.size or not pairs.batch:
            batch = pairs.batch // world.size * world.size or world.size
            pairs = open_data(recipe.datasets, model=model.config, batch=batch, part="validation")
    return Evaluation(world, evaluators, pairs, recipe.precision)


def _steps(recipe: Recipe, data: TrainingData) -> int:
    """Return the number of steps of a run, rounded up."""
    schedule = recipe.schedule
    if schedule.steps is not None:
        return schedule.steps
    if schedule.samples is not None:
        return math.ceil(schedule.samples / recipe.batch.size)
    if data.steps_per_epoch is None:
        raise ConfigError(Problem("a stream has no length; state schedule.steps or samples", "schedule.epochs"))
    assert schedule.epochs is not None
    return math.ceil(schedule.epochs * data.steps_per_epoch)


def _facts(recipe: Recipe, data: TrainingData) -> dict[str, Any]:
    """Return what a checkpoint says of its run, ready for JSON."""
    return {
        "recipe": recipe_digest(recipe),
        "data": data.digest(),
        "resume": data.resume,
        "versions": {"zoo": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }


def _folder_of(recipe: object) -> Path:
    if isinstance(recipe, str | Path):
        return Path("runs") / Path(recipe).stem
    raise InputError("a recipe that is no file has no name; give out=, the folder of the run")


def _check_folder(folder: Path, recipe: Recipe, resume: str, world: World) -> None:
    """Refuse a folder of something else, before anything is built."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise SaveError(f"{folder} is a file; choose a folder for the run")
    has_run = (folder / RECIPE).is_file()
    if not has_run and any(not _is_of_a_start(path.name) for path in folder.iterdir()):
        raise SaveError(f"{folder} holds something else than a run; choose another folder")
    if has_run and resume == "never":
        raise InputError(f"{folder} holds a run already; choose another folder, or let resume be 'auto'")
    if has_run:
        expect_same_recipe(folder, recipe)


def _is_of_a_start(name: str) -> bool:
    """Tell whether a run that was killed before it had begun may have left a file or folder of that name."""
    return name == PROCESSES or SCRATCH.fullmatch(name) is not None


def _go_on(run: Run, resume: str | Path) -> None:
    """Take up the newest whole checkpoint of the folder, or else the one that is named."""
    path = run.checkpoints.latest()
    if path is None and str(resume) not in ("auto", "never"):
        path = Path(resume)
        if not path.is_dir():
            raise CheckpointError(f"{path} is no checkpoint; name a folder such as runs/NAME/checkpoints/step-00001000")
        run.resume(path)
        if run.done >= run.steps:
            raise InputError(f"{path} is of step {run.done:,}, and this recipe ends after step {run.steps:,}")
        return
    if path is None:
        return
    run.resume(path)
    before = run.resumed_facts.get("data")
    if before != run.facts["data"]:
        raise DataError(
            f"the data changed since {path.name} was written ({before} then, {run.facts['data']} now); restore it, or "
            f"choose another --out with --resume {path}"
        )
    if run.done > run.steps:
        raise InputError(f"{path} is of step {run.done:,}, after the last one of this recipe, {run.steps:,}")


def _be_deterministic(resources: ExitStack) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    resources.callback(torch.use_deterministic_algorithms, before)


def _warn(line: str) -> None:
    warn_caller(line, ZooWarning)
