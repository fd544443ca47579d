"""Evaluators beside zoo.evaluation in one process, alone and on two processes."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image

import zoo
from support.peer import randomized
from zoo.evaluation.retrieval import retrieval_metrics
from zoo.plugin import zoo_components
from zoo.training.evaluators import retrieval as retrieval_module
from zoo.training.evaluators import zero_shot as zero_shot_module
from zoo.training.evaluators.config import RetrievalConfig, ZeroShotConfig
from zoo.training.evaluators.retrieval import Retrieval
from zoo.training.evaluators.shares import spread
from zoo.training.evaluators.zero_shot import ZeroShot
from zoo_core.config import DatasetConfig
from zoo_core.errors import ConfigError, DataError, SampleError
from zoo_core.training import Dataset, Sample

CLASSES = {"0": "zero", "1": ["one", "single"], "2": "two", "3": "three", "4": "four", "5": "five", "6": "six"}
TEMPLATES = ["a {}", "the digit {}"]


def picture(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (15, 20, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


class Listed(Dataset):
    def __init__(self, samples: Sequence[Sample | Exception]) -> None:
        self.samples = samples

    def digest(self) -> str:
        return "listed"

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        if isinstance(sample, Exception):
            raise sample
        return sample


def encoded(seed: int) -> bytes:
    content = io.BytesIO()
    picture(seed).save(content, "PNG")
    return content.getvalue()


def labelled(count: int = 23) -> list[Sample]:
    """Images of all forms, with their classes as texts and as ids; class 6 has none."""
    raw = [picture, encoded, lambda seed: np.asarray(picture(seed))]
    return [
        Sample({"image": [raw[seed % 3](seed)], "text": [str(seed * seed % 6)]}, id=str(seed * seed % 6))
        for seed in range(count)
    ]


def captioned(count: int = 13) -> list[Sample]:
    """Rows of a table: one caption each, of which some share an image; a few rows have several."""
    rows = [Sample({"image": [picture(seed)], "text": [f"number {seed}"]}) for seed in range(count)]
    rows += [
        Sample({"image": [encoded(seed)], "text": [f"a {seed}", f"the {seed}"]}, id=f"{seed}") for seed in (50, 51)
    ]
    return [*rows, Sample({"image": [encoded(50)], "text": ["fifty"]}, id="50")]


def tiny() -> Any:
    model = zoo.build("digits-tiny", overrides=["vision.layers=1", "text.layers=1"])
    return randomized(model, seed=4).eval()


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny()


def zero_shot(rows: Sequence[Sample | Exception], **options: Any) -> ZeroShot:
    evaluator = ZeroShot.__new__(ZeroShot)
    evaluator.config = ZeroShotConfig(folder="nowhere", classes=CLASSES, templates=TEMPLATES, batch=4).model_copy(
        update={"dataset": DatasetConfig(type="listed"), **options}
    )
    evaluator.dataset, evaluator.classes = Listed(rows), evaluator.config.classes
    return evaluator


def retrieval(samples: Sequence[Sample | Exception], **options: Any) -> Retrieval:
    evaluator = Retrieval.__new__(Retrieval)
    evaluator.config = RetrievalConfig.model_construct(
        dataset=DatasetConfig(type="listed"), **{"ids": True, "ks": [1, 3], "batch": 4, "samples": None, **options}
    )
    evaluator.dataset = Listed(samples)
    return evaluator


def expected_zero_shot(model: Any, samples: Sequence[Sample]) -> dict[str, float]:
    classifier = zoo.ZeroShotClassifier(model, CLASSES, TEMPLATES)
    images = [Image.open(io.BytesIO(raw)) if isinstance(raw, bytes) else raw for raw in images_of(samples)]
    answers = [[label for label, _ in row] for row in classifier.top(images, 5)]
    labels = [sample.inputs["text"][0] for sample in samples]
    hits = [row[0] == label for row, label in zip(answers, labels, strict=True)]
    of_class = [np.mean([hit for hit, one in zip(hits, labels, strict=True) if one == label]) for label in set(labels)]
    top5 = np.mean([label in row for row, label in zip(answers, labels, strict=True)])
    return {"top1": np.mean(hits), "top5": top5, "mean_per_class": np.mean(of_class)}


def expected_retrieval(model: Any) -> dict[str, float]:
    samples = captioned()[:15]
    images = [Image.open(io.BytesIO(raw)) if isinstance(raw, bytes) else raw for raw in images_of(samples)]
    texts = [f"number {seed}" for seed in range(13)] + ["a 50", "the 50", "a 51", "the 51", "fifty"]
    owner = [*range(13), 13, 13, 14, 14, 13]
    with torch.no_grad():
        pair = model.encode_image(images, normalize=True), model.encode_text(texts, normalize=True)
    both = retrieval_metrics(*pair, owner, ks=[1, 3])
    return {
        f"{name}_{metric}": value
        for name, way in (("image_to_text", both.image_to_text), ("text_to_image", both.text_to_image))
        for metric, value in (("r1", way.recall[1]), ("r3", way.recall[3]), ("median_rank", way.median_rank))
    }


def images_of(samples: Sequence[Sample]) -> list[Any]:
    return [sample.inputs["image"][0] for sample in samples]


@torch.no_grad()
def evaluate(evaluator: Any, model: Any, rank: int = 0, count: int = 1) -> dict[str, float]:
    return dict(evaluator.evaluate(model, rank=rank, count=count))


@pytest.mark.parametrize("label", ["text", "id"])
def test_zero_shot_counts_what_the_classifier_answers(model: Any, label: str) -> None:
    measured = evaluate(zero_shot(labelled(), label=label), model)
    assert measured == pytest.approx(expected_zero_shot(model, labelled()), abs=1e-12)
    assert 0 < measured["top1"] < measured["top5"] <= 1


def test_few_classes_have_no_top5_and_those_that_occur_stand_for_a_list(model: Any) -> None:
    samples = [Sample({"image": [picture(seed)], "text": ["cat" if seed % 2 else "dog"]}) for seed in range(6)]
    evaluator = zero_shot(samples, classes=None)
    answers = zoo.ZeroShotClassifier(model, ["cat", "dog"], TEMPLATES).top(images_of(samples), 1)
    hits = [row[0][0] == sample.inputs["text"][0] for row, sample in zip(answers, samples, strict=True)]
    measured = evaluate(evaluator, model)
    assert set(measured) == {"top1", "mean_per_class"}
    assert measured["top1"] == pytest.approx(np.mean(hits))


def test_a_folder_of_folders_is_a_data_set_with_classes(model: Any, tmp_path: Path) -> None:
    for seed in range(6):
        (tmp_path / str(seed % 3) / "deep").mkdir(parents=True, exist_ok=True)
        picture(seed).save(tmp_path / str(seed % 3) / "deep" / f"{seed}.PNG")
    (tmp_path / "labels.txt").write_text("0\n1\n2\n")
    config = ZeroShotConfig(folder=str(tmp_path), classes=f"@{tmp_path / 'labels.txt'}", templates="the digit {}")
    answers = zoo.ZeroShotClassifier(model, ["0", "1", "2"], "the digit {}").top([picture(s) for s in range(6)], 1)
    hits = [row[0][0] == str(seed % 3) for seed, row in enumerate(answers)]
    assert evaluate(ZeroShot(config), model)["top1"] == pytest.approx(np.mean(hits))


def test_retrieval_is_that_of_zoo_evaluation_with_rows_of_one_id_as_one_image(model: Any) -> None:
    assert evaluate(retrieval(captioned()), model) == pytest.approx(expected_retrieval(model), abs=1e-12)


def test_retrieval_without_ids_takes_every_row_for_an_image(model: Any) -> None:
    samples = [Sample({"image": [picture(seed)], "text": [f"number {seed}"]}, id="same") for seed in range(9)]
    with torch.no_grad():
        features = model.encode_image(images_of(samples), normalize=True)
        texts = model.encode_text([sample.inputs["text"][0] for sample in samples], normalize=True)
    both = retrieval_metrics(features, texts, ks=[1, 3])
    measured = evaluate(retrieval(samples, ids=False), model)
    assert measured["text_to_image_r3"] == pytest.approx(both.text_to_image.recall[3])
    assert measured["image_to_text_median_rank"] == pytest.approx(both.image_to_text.median_rank)


@pytest.mark.parametrize(
    ("size", "samples", "rows"), [(5, None, [0, 1, 2, 3, 4]), (3, 9, [0, 1, 2]), (10, 4, [0, 2, 5, 7])]
)
def test_fewer_samples_are_spread_over_the_data_set(size: int, samples: int | None, rows: list[int]) -> None:
    assert list(spread(size, samples)) == rows


def test_so_many_samples_are_measured(model: Any) -> None:
    samples = labelled()
    some = [samples[row] for row in spread(23, 8)]
    measured = evaluate(zero_shot(samples, samples=8), model)
    assert measured["top1"] == pytest.approx(expected_zero_shot(model, some)["top1"])


GOOD = Sample({"image": [picture(0)], "text": ["1"]}, id="1")
BAD: dict[str, tuple[Any, Any, str]] = {
    "unreadable": (zero_shot, SampleError("shards/3.tar#7: is cut short"), "sample 1: shards/3.tar#7: is cut short"),
    "no image file": (
        zero_shot,
        Sample({"image": [b"GIF89"], "text": ["1"]}),
        "sample 1: image: is no image of a known format",
    ),
    "no image": (zero_shot, Sample({"text": ["1"]}), "sample 1: has no image; it has text"),
    "another class": (
        zero_shot,
        Sample({"image": [picture(1)], "text": ["7"]}),
        "sample 1: its class '7' is none of classes; allowed: 0, 1, 2",
    ),
    "no label": (zero_shot, Sample({"image": [picture(1)]}), "sample 1: has no text, which label: text asks for"),
    "no caption": (retrieval, Sample({"image": [picture(1)]}), "sample 1: has no text; it has image"),
    "two images of one id": (
        retrieval,
        Sample({"image": [picture(1)], "text": ["a"]}, id="1"),
        "sample 0 and sample 1 have the id '1' and different images; with ids: false each sample is an image",
    ),
}


@pytest.mark.parametrize(("evaluator", "sample", "message"), BAD.values(), ids=BAD)
def test_a_sample_that_cannot_be_used_is_named(model: Any, evaluator: Any, sample: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate(evaluator([GOOD, sample]), model)


def test_samples_that_cannot_be_used_are_counted(model: Any) -> None:
    bad = SampleError("is cut short")
    with pytest.raises(DataError, match=r"^sample 1: is cut short; so 2 of 4 samples$"):
        evaluate(zero_shot([GOOD, bad, GOOD, bad]), model)


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "no data": ({}, "dataset: state one of dataset and folder, found neither"),
    "no place for the label": ({"folder": "x", "templates": ["a photo"]}, "templates: template: '{}' has to stand"),
    "no such set": ({"folder": "x", "templates": "imagenet-81"}, "templates: .*did you mean 'imagenet-80'"),
    "a label twice": ({"folder": "x", "classes": "cat, cat"}, "classes: labels: cat is there twice"),
    "an old name": ({"folder": "x", "prompts": ["{}"]}, "templates"),
}


@pytest.mark.parametrize(("data", "message"), CONFIGS.values(), ids=CONFIGS)
def test_a_wrong_config_is_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ZeroShotConfig(**data)


def test_folders_without_images_are_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images in folders that are called as their classes"):
        ZeroShot(ZeroShotConfig(folder=str(tmp_path)))
    with pytest.raises(DataError, match="cannot be listed: No such file or directory"):
        ZeroShot(ZeroShotConfig(folder=str(tmp_path / "nowhere")))


def test_both_evaluators_are_declared_with_their_configs() -> None:
    assert {spec.name: spec.config.rpartition(":")[2] for spec in zoo_components()} == {
        "zero-shot": "ZeroShotConfig",
        "retrieval": "RetrievalConfig",
    }
    assert zero_shot_module.ZeroShot is ZeroShot
    assert retrieval_module.Retrieval is Retrieval


def share_of_work(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2)
    model = tiny()
    results: dict[str, Any] = {
        "zero-shot": evaluate(zero_shot(labelled()), model, rank, 2),
        "retrieval": evaluate(retrieval(captioned()), model, rank, 2),
        "one sample": evaluate(zero_shot(labelled(1)), model, rank, 2),
    }
    try:  # the bad sample is one of the second process, and both have to end
        evaluate(zero_shot([GOOD, SampleError("is cut short")]), model, rank, 2)
    except DataError as error:
        results["error"] = str(error)
    (folder / f"{rank}.json").write_text(json.dumps(results))
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_share_the_work_and_measure_what_one_does(model: Any, tmp_path: Path) -> None:
    mp.start_processes(share_of_work, (tmp_path,), nprocs=2, start_method="spawn")  # type: ignore[no-untyped-call]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first["zero-shot"] == second["zero-shot"] == pytest.approx(expected_zero_shot(model, labelled()), abs=1e-12)
    assert first["retrieval"] == pytest.approx(expected_retrieval(model), abs=1e-12)
    assert second["retrieval"] == {}
    assert first["one sample"]["top1"] == expected_zero_shot(model, labelled(1))["top1"]
    assert first["error"] == second["error"] == "sample 1: is cut short"
