"""Whole runs: from a recipe and a folder of pairs to a model that loads, verifies and knows how it was trained."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import zoo
import zoo.training
from support.training import records, tiny_recipe, weights_digest, write_pairs
from zoo.saved.manifest import read_origin
from zoo.training.checkpoints.record import damage_of
from zoo.training.parallel.world import World
from zoo.training.train import dry_run
from zoo_core.errors import ConfigError, DataError, InputError, TrainingError
from zoo_core.training import Callback


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs")


@pytest.fixture(scope="module")
def finished(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that came to its end."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    zoo.train(tiny_recipe(pairs), out=folder)
    return folder


def with_data(pairs: Path, **changes: Any) -> dict[str, Any]:
    return {"train": {"type": "folder", "path": str(pairs)}, "workers": 0, **changes}


def test_a_run_ends_in_a_model_that_loads_and_verifies(finished: Path) -> None:
    model = zoo.load(finished / "model")
    assert not [finding for finding in zoo.verify(finished / "model") if finding.ok is False]
    features = model.encode_text(["a red disc"])
    assert features.shape == (1, 16) and torch.isfinite(features).all()


def test_the_model_says_how_it_was_trained(finished: Path) -> None:
    facts = json.loads((finished / "model" / "training.json").read_text())
    assert (facts["step"], facts["samples"], facts["weights"], facts["processes"]) == (6, 24, "model", 1)
    assert zoo.training.read_recipe(facts["recipe"]).data() == facts["recipe"]
    assert len(facts["recipe_digest"]) == 64 and len(facts["data"]["train[0]"]) == 64
    assert facts["versions"]["torch"] == torch.__version__ and facts["metrics"]["loss"] > 0


def test_what_it_says_is_part_of_its_digest(pairs: Path, finished: Path, tmp_path: Path) -> None:
    result = zoo.train(tiny_recipe(pairs), out=tmp_path / "run")
    assert result.digest == read_origin(finished / "model").digest
    path = result.folder / "training.json"
    path.write_text(path.read_text().replace('"step": 6', '"step": 7'))
    assert [finding.part for finding in zoo.verify(result.folder) if finding.ok is False]


def test_the_same_recipe_gives_the_same_weights_and_losses(pairs: Path, finished: Path, tmp_path: Path) -> None:
    zoo.train(tiny_recipe(pairs), out=tmp_path / "run")
    assert weights_digest(tmp_path / "run") == weights_digest(finished)
    losses = [
        [line["loss"] for line in records(run) if line["event"] == "step"] for run in (tmp_path / "run", finished)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 6


@pytest.mark.parametrize("change", [{"seed": 1}, {"optimizer": {"lr": 2e-3}}, {"batch": {"size": 6}}])
def test_another_recipe_gives_other_weights(
    pairs: Path, finished: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    zoo.train(tiny_recipe(pairs, **change), out=tmp_path / "run")
    assert weights_digest(tmp_path / "run") != weights_digest(finished)


def test_the_record_has_each_step_and_each_checkpoint(finished: Path) -> None:
    lines = records(finished)
    assert [line["step"] for line in lines if line["event"] == "step"] == [1, 2, 3, 4, 5, 6]
    assert [line["folder"] for line in lines if line["event"] == "save"] == [f"step-{step:08}" for step in (2, 4, 6)]
    rates = [line["lr"] for line in lines if line["event"] == "step"]
    assert rates[0] == 5e-4 and max(rates) == 1e-3 and lines[-1]["event"] == "end"


def test_a_finished_run_is_left_as_it_is(finished: Path, pairs: Path) -> None:
    before = weights_digest(finished), [line for line in records(finished) if line["event"] == "step"]
    result = zoo.train(tiny_recipe(pairs), out=finished)
    assert (weights_digest(finished), [line for line in records(finished) if line["event"] == "step"]) == before
    assert result.step == 6


def test_a_loop_of_ones_own_gives_the_weights_of_the_command(pairs: Path, finished: Path, tmp_path: Path) -> None:
    keys = []
    with zoo.training.prepare(tiny_recipe(pairs), out=tmp_path / "run") as run:
        for batch in run:
            keys.append(batch.keys)
            result = run.step(batch)
            assert torch.isfinite(result.loss)
    assert (run.done, len(keys), {len(rows) for rows in keys}) == (6, 6, {4})
    assert len({key for rows in keys for key in rows}) == 24, "a pass over the data sees each sample once"
    theirs = zoo.load(finished / "model").state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in run.model.eval().state_dict().items())


def test_a_step_that_is_not_taken_is_an_error(pairs: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"step 1: call run\.step\(batch\) once for each batch"),
        zoo.training.prepare(tiny_recipe(pairs), out=tmp_path / "run") as run,
    ):
        for _ in run:
            pass


def test_a_step_that_is_taken_twice_is_an_error(pairs: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"step 1: call run\.step\(batch\) once for each batch"),
        zoo.training.prepare(tiny_recipe(pairs), out=tmp_path / "run") as run,
    ):
        for batch in run:
            run.step(batch)
            run.step(batch)


class Listening(Callback):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def on_start(self, folder: Path, recipe: Any, step: int) -> None:
        self.told.append(("start", step))

    def on_step(self, record: Any) -> None:
        self.told.append(("step", record.step))

    def on_evaluate(self, step: int, metrics: Any) -> None:
        self.told.append(("evaluate", step))

    def on_save(self, step: int, folder: Path) -> None:
        self.told.append(("save", step))

    def on_end(self, step: int, error: Any) -> None:
        self.told.append(("end", step))


def test_held_out_pairs_are_evaluated_at_the_start_between_and_at_the_end(pairs: Path, tmp_path: Path) -> None:
    held_out = write_pairs(tmp_path / "held-out", 10)
    recipe = tiny_recipe(
        pairs,
        data=with_data(pairs, validation={"type": "folder", "path": str(held_out)}),
        evaluate={"every": 4, "at": ["start", "end"]},
        log={"every": 3},
    )
    callback = Listening()
    result = zoo.train(recipe, out=tmp_path / "run", callbacks=[callback])
    assert callback.told == [
        *(("start", 0), ("evaluate", 0), ("save", 2), ("step", 3), ("evaluate", 4), ("save", 4)),
        *(("step", 6), ("evaluate", 6), ("save", 6), ("end", 6)),
    ]
    assert result.metrics["validation/loss"] == pytest.approx(loss_by_hand(result.folder, held_out), abs=1e-5)


def loss_by_hand(model_folder: Path, folder: Path) -> float:
    """The contrastive loss of Radford et al. 2021, figure 3, over batches of four in the order of the files."""
    from PIL import Image

    model = zoo.load(model_folder)
    losses = []
    files = sorted(folder.glob("*.png"))
    for start in (0, 4):
        some = files[start : start + 4]
        images = torch.stack([zoo.preprocess(model_folder)(Image.open(file).convert("RGB")) for file in some])
        texts = model.tokenizer([file.with_suffix(".txt").read_text() for file in some])
        with torch.no_grad():
            image, text = (F.normalize(x, dim=-1) for x in (model.encode_image(images), model.encode_text(texts)))
        logits = model.logit_scale.detach().exp() * image @ text.T
        pair = torch.arange(len(some))
        losses.append((F.cross_entropy(logits, pair) + F.cross_entropy(logits.T, pair)) / 2)
    return float(torch.stack(losses).mean())


def test_evaluation_changes_no_weight(pairs: Path, finished: Path, tmp_path: Path) -> None:
    data = with_data(pairs, validation={"type": "folder", "path": str(pairs)})
    zoo.train(tiny_recipe(pairs, data=data, evaluate={"every": 1}), out=tmp_path / "run")
    assert weights_digest(tmp_path / "run") == weights_digest(finished)


def test_the_best_checkpoint_stays(pairs: Path, tmp_path: Path) -> None:
    data = with_data(pairs, validation={"type": "folder", "path": str(pairs)})
    keep = {"steps": 1, "last": 2, "best": {"metric": "validation/loss", "mode": "max"}}
    recipe = tiny_recipe(pairs, data=data, keep=keep, evaluate={"every": 2}, optimizer={"lr": 0.01})
    zoo.train(recipe, out=tmp_path / "run")
    scores = {
        line["step"]: line["validation/loss"] for line in records(tmp_path / "run") if line["event"] == "evaluate"
    }
    best = max(scores, key=lambda step: scores[step])
    steps = sorted(int(path.name[5:]) for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert steps == sorted({best, 5, 6})


def test_a_checkpoint_is_written_wherever_the_best_is_measured(pairs: Path, tmp_path: Path) -> None:
    data = with_data(pairs, validation={"type": "folder", "path": str(pairs)})
    keep = {"steps": None, "last": 9, "best": {"metric": "validation/loss", "mode": "min"}}
    zoo.train(tiny_recipe(pairs, data=data, keep=keep, evaluate={"every": 2}), out=tmp_path / "run")
    assert [line["step"] for line in records(tmp_path / "run") if line["event"] == "save"] == [2, 4, 6]


def test_bad_samples_are_replaced_and_listed(pairs: Path, finished: Path, tmp_path: Path) -> None:
    broken = write_pairs(tmp_path / "pairs")
    for name in ("003.png", "017.png"):
        (broken / name).write_bytes((broken / name).read_bytes()[:40])
    zoo.train(tiny_recipe(broken), out=tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "bad-samples-0.jsonl").read_text().splitlines()]
    assert {Path(line["location"]).name for line in lines} == {"003", "017"}
    assert all(1 <= line["step"] <= 6 and line["reason"] for line in lines)
    assert not (finished / "bad-samples-0.jsonl").exists()


def test_too_many_bad_samples_end_the_run(tmp_path: Path) -> None:
    broken = write_pairs(tmp_path / "pairs", 40)
    for number in range(30, 40):
        (broken / f"{number:03}.png").write_bytes(b"no picture")
    recipe = tiny_recipe(broken, batch={"size": 20}, schedule={"steps": 100}, keep={"steps": None})
    recipe["data"]["bad_samples"] = {"limit": 0.1}
    with pytest.raises(
        DataError, match=r"of 1,0\d\d samples cannot be used, more than data\.bad_samples\.limit allows"
    ):
        zoo.train(recipe, out=tmp_path / "run")
    assert "samples cannot be used" in records(tmp_path / "run")[-1]["error"]


def test_steps_without_a_finite_gradient_change_nothing_and_end_the_run(pairs: Path, tmp_path: Path) -> None:
    recipe, before = tiny_recipe(pairs, stop={"nonfinite": 3}), {}
    with (
        pytest.raises(TrainingError, match=r"step 3: the gradient was not finite 3 times in a row"),
        zoo.training.prepare(recipe, out=tmp_path / "run") as run,
    ):
        before = {name: value.clone() for name, value in run.model.state_dict().items()}
        for batch in run:
            batch.inputs["image"].fill_(float("nan"))
            run.step(batch)
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())


def test_a_metric_that_is_not_measured_is_refused(pairs: Path, tmp_path: Path) -> None:
    data = with_data(pairs, validation={"type": "folder", "path": str(pairs)})
    recipe = tiny_recipe(pairs, data=data, keep={"best": {"metric": "validation/los"}}, evaluate={"every": 2})
    with pytest.raises(ConfigError, match=r"keep\.best\.metric.*is not measured; allowed: validation/loss"):
        zoo.train(recipe, out=tmp_path / "run")


def test_a_worker_that_dies_ends_the_run_with_the_reason(pairs: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(pairs, schedule={"steps": 200}, keep={"steps": None})
    recipe["data"]["workers"] = 1
    with (
        pytest.raises(TrainingError, match="a worker that reads data died .*step .*data.workers"),
        zoo.training.prepare(recipe, out=tmp_path / "run") as run,
    ):
        for batch in run:
            run.step(batch)
            for child in multiprocessing.active_children():
                child.kill()
                child.join()


class Others(World):
    """A world in which another process is the first to raise a flag."""

    def any(self, *flags: bool) -> list[bool]:
        return [True, *flags[1:]]


def test_too_many_bad_samples_in_another_process_end_the_run_here_too(pairs: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match="step 1: another process met too many bad samples"),
        zoo.training.prepare(tiny_recipe(pairs), out=tmp_path / "run") as run,
    ):
        run.world = Others()
        for batch in run:
            run.step(batch)
    assert damage_of(tmp_path / "run" / "checkpoints" / "step-00000001") is None


def test_a_dry_run_and_chunks_take_batch_norms_that_are_frozen(pairs: Path, tmp_path: Path) -> None:
    vision = {"tower": "modified-resnet", "image_size": 32, "width": 4, "head_width": 16, "layers": [1, 1, 1, 1]}
    model = {**tiny_recipe(pairs)["model"], "vision": vision}
    recipe = tiny_recipe(pairs, model=model, batch={"size": 4, "chunk": 2}, freeze={"batch_norm": "frozen"})
    assert any("gradients" in line for line in dry_run(recipe).lines())
    assert zoo.train(recipe, out=tmp_path / "run").step == 6
