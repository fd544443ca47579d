"""Pictures to tensors: the very bits of open_clip, random crops and colours."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image
from torchvision import transforms as tv

from support.images import MEAN, STD, picture
from zoo_core.config import PreprocessConfig
from zoo_core.errors import ConfigError, ImageFileError, InputError
from zoo_images.color_jitter import jitter
from zoo_images.config import AugmentationConfig, NaFlexImageConfig
from zoo_images.config import ImageConfig as AnyImageConfig
from zoo_images.naflex import NaFlexPreprocessor
from zoo_images.preprocessor import ImagePreprocessor
from zoo_images.random_crop import crop_box

pytestmark = pytest.mark.usefixtures("width_first")


class ImageConfig(AnyImageConfig):
    """With the engine that gives the published bits; `test_engines.py` compares the other one with it."""

    engine: Literal["torch", "pil"] = "pil"


FRAMES = [(224, 224), (32, 32), (75, 75)]
SIZES = [
    (64, 64),
    (301, 200),
    (200, 301),
    (33, 640),
    (3, 90),
    (227, 224),
    (32, 35),
    (500, 375),
]


# Parity


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("frame", FRAMES)
def test_evaluation_gives_the_bits_that_open_clip_gives(frame, resize_mode, interpolation, mode):
    # open_clip pads before it converts; grey padding of a grey picture is the same thing.
    fill = 77 if resize_mode == "longest" else 0
    config = ImageConfig(resize_mode=resize_mode, interpolation=interpolation, fill=fill)
    ours = ImagePreprocessor(config, image_size=frame)
    theirs = image_transform(frame, False, resize_mode=resize_mode, interpolation=interpolation, fill_color=fill)
    for width, height in SIZES:
        image = picture(width, height, mode)
        expected = theirs(image)
        assert torch.equal(ours(image), expected), (width, height)
        assert ours(image).dtype == torch.float32
        assert ours(image).is_contiguous()


@pytest.mark.parametrize("resize_mode", ["longest", "squash"])
@pytest.mark.parametrize("frame", [(64, 96), (97, 40)])
def test_evaluation_matches_open_clip_where_the_frame_is_not_square(frame, resize_mode):
    config = ImageConfig(resize_mode=resize_mode, interpolation="bilinear", mean=[0.5] * 3, std=[0.5] * 3)
    ours = ImagePreprocessor(config, image_size=frame)
    theirs = image_transform(
        frame,
        False,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        resize_mode=resize_mode,
        interpolation="bilinear",
    )
    for width, height in SIZES[:4]:
        assert torch.equal(ours(picture(width, height)), theirs(picture(width, height)))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("frame", [(64, 96), (97, 40)])
def test_a_frame_that_is_not_square_is_filled_with_the_interpolation_asked_for(frame, interpolation):
    ours = ImagePreprocessor(ImageConfig(interpolation=interpolation), image_size=frame)
    for width, height in SIZES:
        image = picture(width, height)
        ratio = min(height / frame[0], width / frame[1])
        theirs = tv.Compose(
            [
                tv.Resize([round(height / ratio), round(width / ratio)], tv.InterpolationMode(interpolation)),
                tv.CenterCrop(frame),
                tv.ToTensor(),
                tv.Normalize(MEAN, STD),
            ]
        )
        assert torch.equal(ours(image), theirs(image)), (width, height)


def test_open_clip_fills_a_frame_that_is_not_square_alike_where_it_is_bicubic():
    ours = ImagePreprocessor(ImageConfig(), image_size=(64, 96))
    theirs = image_transform((64, 96), False)
    assert torch.equal(ours(picture(301, 200)), theirs(picture(301, 200)))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("ratio", [(3 / 4, 4 / 3), (2.0, 3.0)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_training_crops_are_torchvisions_of_the_same_seed(interpolation, ratio, mode):
    train = AugmentationConfig(scale=[0.3, 1.0], ratio=list(ratio))
    ours = ImagePreprocessor(ImageConfig(interpolation=interpolation, train=train), image_size=(48, 64), train=True)
    theirs = tv.Compose(
        [
            tv.RandomResizedCrop((48, 64), (0.3, 1.0), ratio, tv.InterpolationMode(interpolation)),
            tv.Lambda(lambda image: image.convert("RGB")),
            tv.ToTensor(),
            tv.Normalize(MEAN, STD),
        ]
    )
    for seed, (width, height) in enumerate(SIZES[:4] + SIZES[5:]):
        image = picture(width, height, mode)
        torch.manual_seed(seed)
        expected = theirs(image)
        torch.manual_seed(seed)
        assert torch.equal(ours(image), expected), (width, height)


def test_training_is_open_clips_by_default():
    image = picture(301, 200)
    torch.manual_seed(3)
    expected = image_transform(56, True)(image)
    torch.manual_seed(3)
    assert torch.equal(ImagePreprocessor(ImageConfig(), image_size=(56, 56), train=True)(image), expected)


@pytest.mark.parametrize(
    "strengths", [(0.4, 0, 0, 0), (0, 0.4, 0, 0), (0, 0, 0.4, 0), (0, 0, 0, 0.5), (2, 0.3, 0.2, 0.1)]
)
def test_colour_jitter_is_torchvisions_of_the_same_seed(strengths):
    image = picture(40, 30)
    for seed in range(12):
        torch.manual_seed(seed)
        expected = tv.ColorJitter(*strengths)(image)
        torch.manual_seed(seed)
        assert jitter(image, *strengths).tobytes() == expected.tobytes(), seed


# Random crops and colours


def test_crops_lie_inside_the_picture_and_cover_the_shares_and_ratios_asked_for():
    torch.manual_seed(0)
    height, width, draws = 400, 600, 3000
    boxes = np.array([crop_box((height, width), (0.2, 0.4), (2 / 3, 3 / 2)) for _ in range(draws)])
    top, left, high, wide = boxes.T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + high <= height).all() and (left + wide <= width).all()
    share, log_ratio = high * wide / (height * width), np.log(wide / high)
    assert 0.199 < share.min() < 0.205 and 0.395 < share.max() < 0.402
    assert -0.42 < log_ratio.min() < -0.39 and 0.39 < log_ratio.max() < 0.42  # log 1.5 is 0.405
    assert share.mean() == pytest.approx(0.3, abs=0.005)  # uniform in area ...
    assert log_ratio.mean() == pytest.approx(0, abs=0.02)  # ... and in log ratio
    for place in (left / (width - wide), top / (height - high)):
        assert place.mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("source", "ratio", "box"),
    [
        ((10, 400), (0.75, 4 / 3), (0, 193, 10, 13)),
        ((400, 10), (0.75, 4 / 3), (193, 0, 13, 10)),
        ((1, 1), (50.0, 60.0), (0, 0, 1, 1)),
    ],
)
def test_where_no_crop_fits_the_largest_central_one_is_taken(source, ratio, box):
    assert crop_box(source, (1.0, 1.0), ratio) == box


def test_the_seed_decides_everything_that_training_draws():
    train = AugmentationConfig(
        scale=(0.3, 1.0),
        color_jitter=(0.4, 0.4, 0.4, 0.1),
        color_jitter_probability=0.5,
        grey_probability=0.5,
    )
    transform = ImagePreprocessor(ImageConfig(train=train), image_size=(24, 24), train=True)
    image = picture(60, 50)

    def drawn(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        return [transform(image) for _ in range(6)]

    assert all(torch.equal(one, other) for one, other in zip(drawn(1), drawn(1), strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(drawn(1), drawn(2), strict=True))


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_grey_and_jitter_happen_as_often_as_their_probability_says(probability):
    image = picture(16, 16)
    whole = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
    grey = AugmentationConfig(**whole, grey_probability=probability)
    jittered = (
        AugmentationConfig(**whole, color_jitter=(0.5,) * 4, color_jitter_probability=probability)
        if probability
        else AugmentationConfig(**whole)
    )
    plain = ImagePreprocessor(ImageConfig(mean=(0, 0, 0), std=(1, 1, 1)), image_size=(16, 16))(image)
    torch.manual_seed(0)
    for train, is_changed in (
        (grey, lambda out: torch.equal(out[0], out[1]) and torch.equal(out[1], out[2])),
        (jittered, lambda out: not torch.equal(out, plain)),
    ):
        config = ImageConfig(mean=(0, 0, 0), std=(1, 1, 1), train=train)
        transform = ImagePreprocessor(config, image_size=(16, 16), train=True)
        share = np.mean([is_changed(transform(image)) for _ in range(400)])
        assert share == pytest.approx(probability, abs=0.08 if 0 < probability < 1 else 0)


@pytest.mark.parametrize(("strength", "low", "high"), [(0.4, 0.6, 1.4), (1.5, 0.0, 2.5)])
def test_brightness_factors_fill_the_range_of_their_strength(strength, low, high):
    grey = Image.new("RGB", (1, 1), (100, 100, 100))
    torch.manual_seed(0)
    factors = [jitter(grey, strength, 0, 0, 0).getpixel((0, 0))[0] / 100 for _ in range(600)]
    assert low - 0.011 <= min(factors) < low + 0.04
    assert high - 0.04 < max(factors) <= high + 0.011


def test_hue_turns_either_way_and_no_further_than_its_strength():
    red = Image.new("RGB", (1, 1), (255, 0, 0))
    torch.manual_seed(0)
    turns = [jitter(red, 0, 0, 0, 0.1).convert("HSV").getpixel((0, 0))[0] for _ in range(300)]
    signed = [turn - 256 if turn > 128 else turn for turn in turns]
    assert -27 <= min(signed) <= -20 and 20 <= max(signed) <= 27


# Kinds of input


def test_a_path_an_image_and_an_array_give_the_same_tensor(tmp_path):
    image = picture(50, 40)
    image.save(tmp_path / "a.png")
    transform = ImagePreprocessor(ImageConfig(), image_size=(32, 32))
    expected = transform(image)
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), np.asarray(image), np.array(image)[:, :]):
        assert torch.equal(transform(source), expected)


def test_a_batch_stacks_its_images_and_may_be_empty():
    transform = ImagePreprocessor(ImageConfig(), image_size=(24, 32))
    images = [picture(50, 40), picture(40, 50)]
    assert torch.equal(transform.batch(images), torch.stack([transform(image) for image in images]))
    assert transform.batch(iter(images)).shape == (2, 3, 24, 32)
    assert transform.batch(np.zeros((3, 8, 8, 3), np.uint8)).shape == (3, 3, 24, 32)
    assert transform.batch([]).shape == (0, 3, 24, 32)


def test_a_batch_says_which_image_is_wrong(tmp_path):
    transform = ImagePreprocessor(ImageConfig(), image_size=(8, 8))
    with pytest.raises(ImageFileError, match=r"^images\[1\]: .*gone\.png: cannot be opened"):
        transform.batch([picture(9, 9), tmp_path / "gone.png"])
    for single in ("a.png", Path("a.png"), picture(9, 9)):
        with pytest.raises(InputError, match=r"batch takes several images, found one .*; put it in a list"):
            transform.batch(single)


@pytest.mark.parametrize("train", [False, True])
def test_it_survives_pickling(train):
    transform = ImagePreprocessor(ImageConfig(interpolation="bilinear"), image_size=(8, 8), train=train)
    again = pickle.loads(pickle.dumps(transform))
    torch.manual_seed(0)
    expected = transform(picture(20, 30))
    torch.manual_seed(0)
    assert torch.equal(again(picture(20, 30)), expected)


def test_the_picture_handed_in_is_left_alone():
    image = picture(20, 30)
    before = image.tobytes()
    train = AugmentationConfig(color_jitter=(0.5, 0.5, 0.5, 0.5), color_jitter_probability=1.0, grey_probability=1.0)
    for training in (False, True):
        ImagePreprocessor(ImageConfig(train=train), image_size=(30, 20), train=training)(image)
    assert image.tobytes() == before and image.mode == "RGB"


def test_a_picture_that_would_grow_beyond_the_limit_is_refused_before_it_is_resized(tmp_path):
    Image.new("RGB", (200, 1)).save(tmp_path / "line.png")
    transform = ImagePreprocessor(ImageConfig(), image_size=(600, 600))
    message = r"line\.png: its 200 x 1 pixels would be resized to 120000 x 600, more than the limit"
    with pytest.raises(ImageFileError, match=message):
        transform(tmp_path / "line.png")
    longest = ImagePreprocessor(ImageConfig(resize_mode="longest"), image_size=(32, 32))
    assert longest(tmp_path / "line.png").shape == (3, 32, 32)


# Config


def test_a_config_takes_the_lists_that_yaml_gives_and_returns_as_plain_data():
    data = {
        "mean": [0.5, 0.5, 0.5],
        "std": [1, 1, 1],
        "train": {"scale": [0.5, 1], "color_jitter": [0.3, 0.3, 0.3, 0.1], "color_jitter_probability": 0.8},
    }
    config = ImageConfig.parse(data)
    assert config.mean == (0.5, 0.5, 0.5) and config.train.scale == (0.5, 1.0)
    assert ImageConfig.parse(config.data()) == config
    assert ImageConfig.parse(ImageConfig().data()) == ImageConfig()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"meen": [0.5] * 3}, "meen: unknown key, did you mean 'mean'?"),
        ({"mean": 0.5}, "mean: expected a list of 3 numbers, found 0.5"),
        ({"mean": [0.5, 0.5]}, "mean: expected a list of 3 numbers, found [0.5, 0.5]"),
        ({"mean": [123.7, 116.3, 103.5]}, "mean[0]: must be at most 1, found 123.7"),
        ({"mean": [0.5, "0.5", 0.5]}, "mean[1]: expected a number, found '0.5'"),
        ({"std": [0.5, 0, 0.5]}, "std[1]: must be at least 1e-06, found 0"),
        ({"std": [0.5, float("nan"), 0.5]}, "std[1]: "),
        ({"interpolation": "bicubik"}, "interpolation: 'bicubik' is not known, did you mean 'bicubic'?"),
        ({"interpolation": "random"}, "allowed: bicubic, bilinear"),
        ({"resize_mode": "short"}, "resize_mode: 'short' is not known, did you mean 'shortest'?"),
        ({"fill": 256, "resize_mode": "longest"}, "fill: must be at most 255, found 256"),
        ({"fill": 9}, "fill: only resize_mode 'longest' pads, found 'shortest'; leave fill out"),
        ({"exif": "yes"}, "exif: expected true or false, found 'yes'"),
        ({"train": {"scale": [0, 1]}}, "train.scale[0]: must be greater than 0, found 0"),
        ({"train": {"scale": [1.0, 0.9]}}, "train.scale: expected [least, greatest], found [1, 0.9]"),
        ({"train": {"scale": [0.9, 1.1]}}, "train.scale[1]: must be at most 1, found 1.1"),
        ({"train": {"ratio": [2, 1]}}, "train.ratio: expected [least, greatest], found [2, 1]"),
        ({"train": {"ratio": [0, 1]}}, "train.ratio[0]: must be at least 0.005, found 0"),
        ({"train": {"grey_probability": 1.5}}, "train.grey_probability: must be at most 1, found 1.5"),
        ({"train": {"color_jitter": [0.1] * 3}}, "train.color_jitter: expected a list of 4 numbers"),
        (
            {"train": {"color_jitter": [0, 0, 0, 0.6]}},
            "color_jitter[3]: must be at most 0.5, found 0.6",
        ),
        ({"train": {"color_jitter": [0.1] * 4}}, "does nothing while color_jitter_probability is 0"),
        ({"train": {"color_jitter_probability": 0.5}}, "does nothing without color_jitter"),
        ({"train": {"hflip": 0.5}}, "train.hflip: unknown key"),
    ],
)
def test_a_config_that_cannot_be_used_says_why(data, message):
    with pytest.raises(ConfigError) as caught:
        ImageConfig.parse(data)
    assert message in str(caught.value)


# The plugin


def python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_declaring_the_plugin_and_its_config_imports_no_torch():
    heavy = "{'torch', 'torchvision', 'timm', 'transformers', 'PIL', 'numpy'} & set(sys.modules)"
    assert python(f"import sys, zoo_images.plugin, zoo_images.config; print({heavy})") == "set()\n"


def test_preprocessing_imports_no_torchvision():
    code = "import sys, zoo_images.preprocessor; print({'torchvision', 'timm'} & set(sys.modules))"
    assert python(code) == "set()\n"


def test_the_declared_component_builds_a_preprocessor():
    from zoo_core.registry import Component, Plugin
    from zoo_images import plugin

    spec, _ = plugin.zoo_components()
    component = Component(spec, Plugin("images", "zoo_images.plugin", "clip-zoo", "0"))
    config_class = component.config_class()
    assert issubclass(config_class, PreprocessConfig) and config_class().component == spec.name
    built = component.build(config_class(), image_size=(8, 16), train=False)
    assert built(picture(9, 9)).shape == (3, 8, 16)


LIVELY = AugmentationConfig(
    scale=(0.3, 1.0), color_jitter=(0.4, 0.4, 0.4, 0.1), color_jitter_probability=0.5, grey_probability=0.3
)


@pytest.mark.parametrize("engine", ["torch", "pil"])
@pytest.mark.parametrize("preprocessor", ["image", "naflex"])
def test_a_generator_draws_what_the_global_one_draws_and_leaves_that_alone(preprocessor, engine):
    transform = (
        ImagePreprocessor(ImageConfig(engine=engine, train=LIVELY), image_size=(24, 24), train=True)
        if preprocessor == "image"
        else NaFlexPreprocessor(NaFlexImageConfig(engine=engine, train=LIVELY), image_size=(32, 32), train=True)
    )
    image, raw = picture(60, 50), torch.randint(256, (2, 3, 50, 60), dtype=torch.uint8)
    for seed in range(8):
        torch.manual_seed(seed)
        expected = [transform(image), *transform.prepare(raw)]
        torch.manual_seed(99)
        state = torch.get_rng_state()
        generator = torch.Generator().manual_seed(seed)
        prepared = [transform(image, generator=generator), *transform.prepare(raw, generator=generator)]
        assert torch.equal(torch.get_rng_state(), state)
        for ours, theirs in zip(prepared, expected, strict=True):
            pixels = [value["patches"] if isinstance(value, dict) else value for value in (ours, theirs)]
            assert torch.equal(*pixels)


@pytest.mark.parametrize("engine", ["torch", "pil"])
@pytest.mark.parametrize("ending", ["jpeg", "png", "webp", "gif"])
def test_the_bytes_of_a_file_are_read_as_the_file_is(tmp_path, ending, engine):
    path = tmp_path / f"picture.{ending}"
    picture(60, 50).save(path)
    transform = ImagePreprocessor(ImageConfig(engine=engine), image_size=(24, 24))
    assert torch.equal(transform(path.read_bytes()), transform(path))
    for content, message in (
        (b"", "is an empty file, no image"),
        (path.read_bytes()[:40], "image: "),
        (b"GARBAGE", "no image"),
    ):
        with pytest.raises(InputError, match=message):
            transform(content)
