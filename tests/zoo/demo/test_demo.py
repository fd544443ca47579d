"""The demo: what it trains on, what it keeps apart, and that it learns. The full run is marked slow."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.demo import DemoResult, draw, recipe, run_demo
from zoo.demo.data import Digits, captions, distort, draw_groups, load_digits
from zoo.demo.evaluation import Evaluation, evaluate
from zoo.demo.settings import FIGURES, HELD_OUT_TEMPLATES, RECIPE, TRAIN_TEMPLATES, WORDS
from zoo.demo.training import train
from zoo_core.errors import InputError, MissingDependencyError

STEPS = 60


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load_digits(seed=0, test_share=0.2)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> DemoResult:
    return run_demo(tmp_path_factory.mktemp("demo") / "model", seed=3, steps=STEPS)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def test_importing_the_demo_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'sklearn', 'matplotlib', 'numpy'}"
    code = f"import sys, zoo.demo, zoo.demo.settings; print({heavy} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_the_split_is_disjoint_complete_and_holds_out_a_fifth_of_every_class(digits: Digits) -> None:
    train_indices, test_indices = set(digits.train.indices.tolist()), set(digits.test.indices.tolist())
    assert not train_indices & test_indices
    assert len(train_indices | test_indices) == 1797
    everything = np.bincount(digits.train.labels) + np.bincount(digits.test.labels)
    assert np.abs(np.bincount(digits.test.labels) - 0.2 * everything).max() < 1


def test_the_split_depends_on_the_seed_alone(digits: Digits) -> None:
    assert np.array_equal(load_digits(0, 0.2).test.indices, digits.test.indices)
    assert not np.array_equal(load_digits(1, 0.2).test.indices, digits.test.indices)


def test_labels_belong_to_their_pictures(digits: Digits) -> None:
    from sklearn.datasets import load_digits as peer

    data = peer()
    for position in (0, 100, 359):
        original = data.images[digits.test.indices[position]] * (255 / 16)
        small = np.asarray(digits.test.pictures[position].resize((8, 8), Image.Resampling.BOX), dtype=float)
        assert np.corrcoef(small.ravel(), original.ravel())[0, 1] > 0.95
        assert data.target[digits.test.indices[position]] == digits.test.labels[position]


def test_held_out_templates_never_occur_in_training_captions() -> None:
    trained = {caption.lower().strip(" .") for digit in captions() for caption in digit}
    held_out = {template.format(name) for template in HELD_OUT_TEMPLATES for name in (*WORDS, *FIGURES)}
    assert not trained & held_out
    assert not set(TRAIN_TEMPLATES) & set(HELD_OUT_TEMPLATES)


def test_every_digit_has_each_template_in_words_and_in_figures() -> None:
    assert [len(texts) for texts in captions()] == [2 * len(TRAIN_TEMPLATES)] * 10
    assert captions(["the {}"])[7] == ["the seven", "the 7"]


def test_no_caption_is_cut_by_the_context_length() -> None:
    tokenizer = zoo.tokenizer("digits-tiny")
    for texts in captions([*TRAIN_TEMPLATES, *HELD_OUT_TEMPLATES]):
        for text in texts:
            assert len(tokenizer.encode(text)) <= tokenizer.context_length - 2, text


def test_each_group_shows_every_digit_once(digits: Digits, generator: torch.Generator) -> None:
    labels = torch.from_numpy(digits.train.labels)
    groups = draw_groups(labels, 7, generator)
    assert torch.equal(labels[groups], torch.arange(10).expand(7, 10))


def test_preprocessing_puts_the_opposite_grey_at_the_opposite_sign() -> None:
    ramp = Image.fromarray(np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1)))
    swapped = Image.fromarray(255 - np.asarray(ramp))
    preprocess = zoo.preprocess("digits-tiny")
    torch.testing.assert_close(preprocess(swapped), -preprocess(ramp), atol=0.02, rtol=0)


def test_distortion_keeps_shape_and_range_and_follows_the_generator(generator: torch.Generator) -> None:
    images = torch.rand(64, 3, 16, 16, generator=generator) * 2 - 1
    first = distort(images, RECIPE, torch.Generator().manual_seed(1))
    assert first.shape == images.shape
    assert first.dtype == torch.float32
    assert first.min() >= -1
    assert first.max() <= 1
    assert torch.equal(first, distort(images, RECIPE, torch.Generator().manual_seed(1)))
    assert not torch.equal(first, distort(images, RECIPE, torch.Generator().manual_seed(2)))


def test_distortion_without_strength_changes_nothing(generator: torch.Generator) -> None:
    images = torch.rand(8, 3, 16, 16, generator=generator) * 2 - 1
    torch.testing.assert_close(distort(images, RECIPE, generator, strength=0), images, atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", [-1.0, 1.0], ids=["left half", "right half"])
def test_distortion_moves_ink_but_keeps_it(side: float, generator: torch.Generator) -> None:
    images = torch.full((256, 3, 16, 16), -1.0)
    images[:, :, 6:10, 6:10] = 1
    moved = distort(images, replace(RECIPE, noise=0, inversion=0), generator)
    ink = (moved[:, 0] + 1) / 2
    columns = (ink.sum(1) * torch.arange(16.0)).sum(1) / ink.sum((1, 2))
    assert ((columns - 7.5) * side).max() > 1  # in both directions
    assert (columns - 7.5).abs().max() < 1.5 * RECIPE.shift * 16
    assert (ink.sum((1, 2)) > 7).all()


def test_distortion_inverts_about_as_often_as_the_recipe_says(generator: torch.Generator) -> None:
    images = torch.full((1000, 1, 8, 8), -1.0)
    inverted = distort(images, replace(RECIPE, noise=0, inversion=0.3), generator).mean((1, 2, 3)) > 0
    assert 0.25 < inverted.float().mean() < 0.35


def test_a_few_steps_lower_the_loss(result: DemoResult) -> None:
    assert len(result.losses) == STEPS
    assert np.mean(result.losses[-10:]) < 0.9 * np.mean(result.losses[:10])
    assert result.accuracy > 0.2  # chance is 0.1


def test_equal_seeds_give_equal_weights_and_leave_the_random_state_alone(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    runs = [run_demo(tmp_path / name, seed=seed, steps=3) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    assert torch.equal(torch.get_rng_state(), state)
    assert runs[0].losses == runs[1].losses != runs[2].losses
    weights = [(run.folder / "model.safetensors").read_bytes() for run in runs]
    assert weights[0] == weights[1] != weights[2]


def test_progress_hears_of_every_step(digits: Digits) -> None:
    heard: list[tuple[int, int, dict[str, float]]] = []
    losses = train(
        zoo.build("digits-tiny"), digits.train, replace(RECIPE, steps=3), 0, lambda *step: heard.append(step)
    )
    assert [(step, steps) for step, steps, _ in heard] == [(1, 3), (2, 3), (3, 3)]
    assert [measured["loss"] for _, _, measured in heard] == losses


def test_training_takes_one_thread_and_leaves_the_model_in_evaluation_mode(digits: Digits) -> None:
    used: list[int] = []
    model = zoo.build("digits-tiny")
    threads = torch.get_num_threads()
    train(model, digits.train, replace(RECIPE, steps=1), 0, lambda *_: used.append(torch.get_num_threads()))
    assert not model.training
    assert used == [1]
    assert torch.get_num_threads() == threads


def test_the_saved_model_gives_the_reported_accuracy(result: DemoResult) -> None:
    held_out = load_digits(3, RECIPE.test_share).test
    again = evaluate(zoo.load(result.folder), held_out)
    assert again.accuracy == result.accuracy
    assert again.template_accuracy == result.template_accuracy


def test_weights_stay_below_two_megabytes(result: DemoResult) -> None:
    assert (result.folder / "model.safetensors").stat().st_size < 2_000_000


def test_samples_are_held_out_digits_that_the_model_takes(result: DemoResult) -> None:
    held_out = load_digits(3, RECIPE.test_share).test
    of_class = {
        digit: [np.asarray(held_out.pictures[i]) for i in np.flatnonzero(held_out.labels == digit)]
        for digit in range(10)
    }
    assert [path.relative_to(result.folder).as_posix() for path in result.samples] == [
        f"samples/{d}.png" for d in range(10)
    ]
    for digit, path in enumerate(result.samples):
        pixels = np.asarray(Image.open(path))
        assert pixels.shape == (64, 64)
        assert any(np.array_equal(pixels, other) for other in of_class[digit])
    assert zoo.load(result.folder).encode_image(list(result.samples)).shape == (10, 64)


def test_the_result_is_plain_data(result: DemoResult) -> None:
    data = json.loads(json.dumps(result.to_dict()))
    assert data["accuracy"] == result.accuracy
    assert set(data["template_accuracy"]) == set(HELD_OUT_TEMPLATES)
    assert np.array(data["confusion"]).sum() == data["test_digits"] == 360
    assert np.trace(result.confusion) / 360 == pytest.approx(result.accuracy)


def test_the_recipe_lies_beside_the_weights(result: DemoResult) -> None:
    written = json.loads((result.folder / "recipe.json").read_text())
    assert written["seed"] == 3
    assert written["steps"] == STEPS
    assert written["train_templates"] == list(TRAIN_TEMPLATES)
    assert set(recipe()) <= set(written)


def test_confusion_counts_the_digit_shown_down_and_the_digit_named_across() -> None:
    evaluation = Evaluation(np.array([0, 0, 1]), np.array([0, 5, 1]), {})
    expected = np.zeros((10, 10))
    expected[0, 0] = expected[0, 5] = expected[1, 1] = 1
    assert np.array_equal(evaluation.confusion, expected)
    assert evaluation.accuracy == pytest.approx(2 / 3)


def _evaluation(digits: Digits, named: Any) -> Evaluation:
    return Evaluation(digits.test.labels, named, {t: {"word": named, "figure": named} for t in HELD_OUT_TEMPLATES})


def test_the_picture_is_drawn_and_marks_mistakes_in_red(digits: Digits, tmp_path: Path) -> None:
    labels = digits.test.labels
    pictures = [
        np.asarray(Image.open(draw(_evaluation(digits, named), digits.test, tmp_path / f"{shift}.png")).convert("RGB"))
        for shift, named in enumerate((labels, (labels + 1) % 10))
    ]
    red = [(np.abs(pixels.astype(int) - (0xCF, 0x22, 0x2E)).max(-1) < 8).sum() for pixels in pictures]
    assert all(pixels.shape[1] > 1000 and pixels.std() > 20 for pixels in pictures)
    assert red[0] == 0
    assert red[1] > 5000


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("sklearn", "the demo needs scikit-learn: .*; run: pip install 'clip-zoo\\[demo\\]'"),
        ("matplotlib", "the demo needs matplotlib: .*; run: pip install 'clip-zoo\\[demo\\]'"),
    ],
)
def test_a_missing_package_is_named_with_its_command_before_anything_is_done(
    module: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for loaded in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=message):
        run_demo(tmp_path / "model", steps=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, found 0"),
        ({"seed": -1}, "seed must be from 0 to 4294967295, found -1"),
        ({"seed": 2**32}, "seed must be from 0 to 4294967295, found 4294967296"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        run_demo(tmp_path / "model", **arguments)
    assert str(caught.value) == message


@pytest.mark.slow
def test_the_full_demo_reads_held_out_digits_from_held_out_prompts_and_on_light_paper(tmp_path: Path) -> None:
    found = run_demo(tmp_path / "model")
    assert found.accuracy >= 0.95
    assert min(share for shares in found.template_accuracy.values() for share in shares.values()) >= 0.9
    held_out = load_digits(0, RECIPE.test_share).test
    swapped = [Image.fromarray(255 - np.asarray(picture)) for picture in held_out.pictures]
    assert evaluate(zoo.load(found.folder), replace(held_out, pictures=swapped)).accuracy >= 0.93
