"""Engines of preprocessing: how far torch's pixels and features are from Pillow's, and what a draft of a JPEG costs."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import zoo
from support.images import picture
from support.peer import randomized
from zoo_images.config import ImageConfig, NaFlexImageConfig
from zoo_images.naflex import NaFlexPreprocessor
from zoo_images.preprocessor import ImagePreprocessor

SIZES = [(301, 200), (200, 301), (33, 640), (64, 64), (20, 30), (500, 375)]
COLOURS: dict[str, Any] = {"mean": [0, 0, 0], "std": [1, 1, 1]}


def both(train: bool = False, frame: tuple[int, int] = (64, 64), **options: Any) -> tuple[Any, Any]:
    configs = [ImageConfig.parse({**COLOURS, "engine": engine, **options}) for engine in ("torch", "pil")]
    fast, exact = (ImagePreprocessor(config, image_size=frame, train=train) for config in configs)
    return fast, exact


def deviation(fast: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the largest difference in steps of 1/255."""
    assert fast.shape == exact.shape
    assert fast.dtype == exact.dtype == torch.float32
    return ((fast - exact) * 255).abs().max().item()


@pytest.mark.parametrize("frame", [(64, 64), (75, 75), (64, 96)])
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_are_within_a_step_of_pillows_but_for_one_in_thousands(
    interpolation: str, resize_mode: str, frame: Any
) -> None:
    fast, exact = both(interpolation=interpolation, resize_mode=resize_mode, frame=frame)
    for (width, height), mode in itertools.product(SIZES, ("RGB", "L")):
        image = picture(width, height, mode)
        steps = ((fast(image) - exact(image)) * 255).abs()
        assert steps.max() < 2.001, (width, height)
        assert (steps > 1.001).float().mean() < 1e-4, (width, height)
        assert fast(image).is_contiguous()


@settings(deadline=None, max_examples=60)
@given(
    width=st.integers(1, 200),
    height=st.integers(1, 200),
    side=st.integers(1, 70),
    seed=st.integers(0, 3),
    mode=st.sampled_from(["shortest", "longest", "squash"]),
)
def test_any_size_comes_out_alike(width: int, height: int, side: int, seed: int, mode: str) -> None:
    """White noise at any size is the worst case; nobody's picture is."""
    if max(width, height) > 190 * min(width, height):
        return
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    fast, exact = both(frame=(side, side), resize_mode=mode)
    assert deviation(fast(pixels), exact(pixels)) < 2.001
    assert (fast(pixels) - exact(pixels)).abs().mean() * 255 < 0.2


def test_few_pixels_are_a_step_away() -> None:
    fast, exact = both(frame=(224, 224))
    image = picture(640, 480)
    steps = ((fast(image) - exact(image)) * 255).abs()
    assert steps.mean() < 0.02


def test_tall_pictures_have_the_pixels_that_they_had_before_pillow_13() -> None:
    """Pillow 13 shrinks these vertically first, and rounds and cuts otherwise in between."""
    board = Image.fromarray(np.random.default_rng(0).integers(0, 2, (300, 100, 3), dtype=np.uint8) * 255)
    bicubic = Image.Resampling.BICUBIC
    expected = np.asarray(board.resize((90, 300), bicubic).resize((90, 60), bicubic)).astype(np.float32) / 255
    fast, exact = both(frame=(60, 90), resize_mode="squash")
    assert torch.equal(exact(board), torch.from_numpy(expected).permute(2, 0, 1))
    assert deviation(fast(board), exact(board)) < 2.001
    if Image.core.PILLOW_VERSION >= "13":
        turned = np.asarray(board.resize((90, 60), bicubic)).astype(np.float32) / 255
        assert np.abs(turned - expected).max() * 255 > 10


def test_what_needs_no_resampling_is_equal() -> None:
    fast, exact = both()
    torch.testing.assert_close(fast(picture(64, 64)), exact(picture(64, 64)), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "train", [{}, {"color_jitter": [0.4, 0.4, 0.4, 0.1], "color_jitter_probability": 1.0}, {"grey_probability": 1.0}]
)
def test_training_draws_the_same_crop_and_colours(train: dict[str, Any]) -> None:
    fast, exact = both(train=True, frame=(32, 48))
    config = [one.config.model_copy(update={"train": type(one.config.train).parse(train)}) for one in (fast, exact)]
    fast, exact = (ImagePreprocessor(one, image_size=(32, 48), train=True) for one in config)
    limit = 2.001 if "color_jitter" not in train else 16  # hue turns a step of one colour into several
    for seed in range(5):
        torch.manual_seed(seed)
        mine = fast(picture(120, 80))
        torch.manual_seed(seed)
        assert deviation(mine, exact(picture(120, 80))) < limit


def test_patches_come_out_alike() -> None:
    made = [
        NaFlexPreprocessor(
            NaFlexImageConfig.parse({**COLOURS, "engine": engine, "patch_size": 8, "image_seq_len": 40}),
            image_size=(48, 48),
        )
        for engine in ("torch", "pil")
    ]
    fast, exact = (one(picture(120, 70)) for one in made)
    assert torch.equal(fast["patch_coord"], exact["patch_coord"])
    assert deviation(fast["patches"], exact["patches"]) < 2.001


@pytest.mark.parametrize("name", ["digits-tiny", "vit-b32"])
def test_features_point_the_same_way(name: str) -> None:
    """The condition under which torch is the default: a cosine of 0.9999."""
    if name == "digits-tiny":
        model: Any = zoo.build(name, pretrained="demo")
    else:
        model = randomized(zoo.build(name, towers=("image",), overrides=["vision.layers=4"]))
    assert model.preprocess.config.engine == "torch"
    exact = zoo.preprocess(zoo.config(model.config, ["preprocess.engine=pil"]))
    images = [picture(320, 240, seed=seed) for seed in range(6)]
    with torch.inference_mode():
        fast = model.encode_image(images, normalize=True)
        slow = model.encode_image(torch.stack([exact(image) for image in images]), normalize=True)
    assert (fast * slow).sum(dim=-1).min() >= 0.9999


# Drafts of JPEG files


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    picture(1600, 1200).resize((1600, 1200)).save(tmp_path / "photo.jpg", quality=95)
    return tmp_path / "photo.jpg"


def test_a_draft_is_read_at_no_less_than_twice_the_frame(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    made, _ = both(draft=True, frame=(100, 100))
    resample = made._engine.resample
    monkeypatch.setattr(
        made._engine, "resample", lambda sheet, size: (seen.append(tuple(sheet.shape)), resample(sheet, size))[1]
    )
    made(photo)
    assert seen == [(3, 300, 400)]  # an eighth would be 200 x 150


def test_a_draft_shows_the_same_picture(photo: Path) -> None:
    draft, plain = both(draft=True, frame=(100, 100))[0], both(frame=(100, 100))[0]
    assert (draft(photo) - plain(photo)).abs().mean() < 0.03
    assert not torch.equal(draft(photo), plain(photo))


def test_a_draft_changes_nothing_of_small_files_and_other_formats(tmp_path: Path) -> None:
    draft, plain = both(draft=True, frame=(100, 100))[0], both(frame=(100, 100))[0]
    picture(180, 150).save(tmp_path / "small.jpg")
    picture(800, 900).save(tmp_path / "large.png")
    for name in ("small.jpg", "large.png"):
        assert torch.equal(draft(tmp_path / name), plain(tmp_path / name))


def test_training_reads_whole_files(photo: Path) -> None:
    draft, plain = both(draft=True, train=True)[0], both(train=True)[0]
    torch.manual_seed(0)
    expected = plain(photo)
    torch.manual_seed(0)
    assert torch.equal(draft(photo), expected)


def test_an_engine_that_is_not_there_is_refused() -> None:
    from zoo_core.errors import ConfigError

    with pytest.raises(ConfigError, match="engine: "):
        ImageConfig.parse({"engine": "opencv"})


def test_a_saved_model_keeps_its_engine(tmp_path: Path) -> None:
    model = zoo.build("digits-tiny", pretrained="demo", overrides=["preprocess.engine=pil"])
    zoo.save(model, tmp_path / "saved")
    assert zoo.load(tmp_path / "saved").preprocess.config.engine == "pil"  # type: ignore[union-attr]
