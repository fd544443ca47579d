"""Pictures that are uint8 tensors already: what the same pictures become, on their device, or one clear error."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.transforms import InterpolationMode, v2

import zoo
from support.images import MEAN, STD, picture
from zoo_core.errors import InputError
from zoo_core.images import Preprocessor
from zoo_images import engines
from zoo_images.config import ImageConfig, NaFlexImageConfig
from zoo_images.engines import PilEngine, TorchEngine
from zoo_images.naflex import NaFlexPreprocessor
from zoo_images.preprocessor import ImagePreprocessor

AVX2 = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="torchvision resizes in float there"
)
SIZES = [(100, 80), (64, 48), (50, 200), (30, 20), (200, 55), (1, 1), (1, 150)]
"""Height and width: shrinking, fitting, growing in one side or both, and a single pixel or row."""


def pixels(height: int, width: int, count: int = 2, seed: int = 0) -> Tensor:
    """Raw pixels `[B, 3, H, W]` with smooth parts, edges and noise."""
    arrays = [np.array(picture(width, height, seed=seed + number)) for number in range(count)]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


def arrays(images: Tensor) -> list[np.ndarray]:
    """The same pictures as arrays `[H, W, 3]`."""
    return list(images.permute(0, 2, 3, 1).contiguous().numpy())


def built(frame: tuple[int, int] = (64, 48), train: bool = False, **options: Any) -> ImagePreprocessor:
    return ImagePreprocessor(ImageConfig.parse(options), image_size=frame, train=train)


def steps(one: Tensor, other: Tensor) -> Tensor:
    """The differences of uint8 tensors."""
    return (one.int() - other.int()).abs()


# On the CPU: the bits of the picture


@pytest.mark.parametrize("engine", ["torch", "pil"])
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_a_tensor_becomes_what_its_picture_becomes(engine: str, resize_mode: str, interpolation: str) -> None:
    fill = {"fill": 90} if resize_mode == "longest" else {}
    made = built(engine=engine, resize_mode=resize_mode, interpolation=interpolation, **fill)
    for height, width in SIZES:
        images = pixels(height, width)
        expected = torch.stack([made(one) for one in arrays(images)])
        for given_ in (images, list(images), iter(images)):
            found = made.batch(given_)
            assert torch.equal(found, expected), (height, width)
            assert found.is_contiguous() and found.dtype == torch.float32
        assert torch.equal(made(images[1]), expected[1])


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels last": lambda images: images.to(memory_format=torch.channels_last),
    "rows before columns": lambda images: images.transpose(2, 3).contiguous().transpose(2, 3),
    "a part of a larger tensor": lambda images: torch.cat([images, images], dim=3)[..., : images.shape[3]],
    "every other picture": lambda images: torch.stack([images, images], dim=1).flatten(0, 1)[::2],
    "one picture, repeated": lambda images: images[:1].expand(2, -1, -1, -1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("engine", ["torch", "pil"])
def test_the_layout_in_memory_changes_nothing(layout: str, engine: str) -> None:
    made = built(engine=engine)
    for height, width in SIZES:
        images = LAYOUTS[layout](pixels(height, width))
        assert torch.equal(made.batch(images), made.batch(images.clone(memory_format=torch.contiguous_format)))


def test_the_pixels_handed_in_are_left_alone() -> None:
    for height, width in SIZES:
        images = pixels(height, width)
        before = images.clone()
        found = built().batch(images)
        found.zero_()
        assert torch.equal(images, before)


def test_tensors_of_any_sizes_and_pictures_stand_in_one_list() -> None:
    made = built()
    small, large = pixels(30, 20)[0], pixels(100, 80)[0]
    mixed = made.batch([small, picture(70, 90), large])
    assert torch.equal(mixed, torch.stack([made(small), made(picture(70, 90)), made(large)]))


def test_there_may_be_no_pictures() -> None:
    for engine in ("torch", "pil"):
        for height, width in ((100, 80), (30, 20)):
            assert built(engine=engine).batch(pixels(height, width)[:0]).shape == (0, 3, 64, 48)
    assert built(train=True).batch(pixels(9, 9)[:0]).shape == (0, 3, 64, 48)


def test_a_frame_of_one_pixel_is_taken() -> None:
    """Where torch's kernel for 8-bit pixels fails an assertion of its own."""
    made = built((1, 1), resize_mode="squash")
    images = pixels(9, 5)
    assert torch.equal(made.batch(images), torch.stack([made(one) for one in arrays(images)]))


@pytest.mark.parametrize("engine", ["torch", "pil"])
@pytest.mark.parametrize(
    "colours", [{}, {"color_jitter": [0.4, 0.4, 0.4, 0.1], "color_jitter_probability": 0.5, "grey_probability": 0.5}]
)
def test_training_draws_for_each_tensor_what_it_draws_for_its_picture(engine: str, colours: dict[str, Any]) -> None:
    made = built(train=True, engine=engine)
    made.config = made.config.model_copy(update={"train": type(made.config.train).parse(colours)})
    images = pixels(90, 70, count=4)
    torch.manual_seed(5)
    expected = made.batch(arrays(images))
    torch.manual_seed(5)
    assert torch.equal(made.batch(images), expected)
    torch.manual_seed(5)
    assert torch.equal(made.batch(list(images)), expected)


@pytest.mark.parametrize("engine", ["torch", "pil"])
@pytest.mark.parametrize("train", [False, True])
def test_tensors_are_cut_into_the_patches_of_their_pictures(engine: str, train: bool) -> None:
    config = NaFlexImageConfig.parse({"engine": engine, "patch_size": 8, "image_seq_len": 40})
    made = NaFlexPreprocessor(config, image_size=(48, 48), train=train)
    for height, width in ((120, 70), (20, 90), (10, 9)):
        images = pixels(height, width, count=3)
        torch.manual_seed(2)
        expected = made.batch(arrays(images))
        for given_ in (images, list(images)):
            torch.manual_seed(2)
            found = made.batch(given_)
            assert all(torch.equal(found[key], expected[key]) for key in expected)
        assert made(images[0])["patches"].ndim == 2
    assert made.batch(pixels(20, 20)[:0])["patches"].shape == (0, 1, 192)


# Beside torchvision


def peer(frame: tuple[int, int], resize_mode: str, interpolation: str) -> v2.Compose:
    size = list(frame) if resize_mode == "squash" else [frame[0]]
    return v2.Compose(
        [
            v2.Resize(size, InterpolationMode(interpolation), antialias=True),
            v2.CenterCrop(frame),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )


@AVX2
@pytest.mark.parametrize("resize_mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pictures_that_shrink_are_those_of_torchvision(resize_mode: str, interpolation: str) -> None:
    ours = built((64, 64), resize_mode=resize_mode, interpolation=interpolation)
    theirs = peer((64, 64), resize_mode, interpolation)
    for height, width in ((100, 80), (64, 64), (64, 300), (301, 200), (427, 640)):
        images = pixels(height, width)
        torch.testing.assert_close(ours.batch(images), theirs(images), rtol=0, atol=2e-6)


@AVX2
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pictures_that_grow_are_within_a_step_of_torchvisions_but_for_few_pixels(interpolation: str) -> None:
    ours = built((64, 64), interpolation=interpolation, mean=[0, 0, 0], std=[1, 1, 1])
    theirs = v2.Compose(peer((64, 64), "shortest", interpolation).transforms[:-1])
    for height, width in ((30, 20), (50, 63), (1, 1), (5, 60)):
        images = pixels(height, width)
        difference = (ours.batch(images) - theirs(images)).abs() * 255
        assert difference.max() < 2.001
        assert (difference > 1.001).float().mean() < 1e-3


# Devices without kernels for 8-bit pixels; the arithmetic is the same on every one of them


def in_float(images: Tensor, size: tuple[int, int], interpolation: str = "bicubic") -> Tensor:
    return TorchEngine(ImageConfig.parse({"interpolation": interpolation})).resample_in_float(images, size)


def by_pillow(images: Tensor, size: tuple[int, int], interpolation: str = "bicubic") -> Tensor:
    config = ImageConfig.parse({"interpolation": interpolation})
    sheets = [PilEngine(config).resample(TorchEngine(config).to_pil(one), size) for one in images]
    return torch.from_numpy(np.stack([np.array(one) for one in sheets])).permute(0, 3, 1, 2)


@settings(deadline=None, max_examples=60)
@given(
    source=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    size=st.tuples(st.integers(1, 120), st.integers(2, 120)),  # for a width of 1 torch's CPU kernel in float is wrong
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    seed=st.integers(0, 9),
)
def test_in_float_any_size_is_within_a_step_of_pillow(
    source: tuple[int, int], size: tuple[int, int], interpolation: str, seed: int
) -> None:
    """White noise is the worst that there is; two steps are rare even there."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (1, 3, *source), generator=generator, dtype=torch.uint8)
    difference = steps(in_float(images, size, interpolation), by_pillow(images, size, interpolation))
    assert difference.max() <= 2
    assert (difference > 1).sum() <= max(1, 1e-4 * difference.numel())


@pytest.mark.parametrize("size", [(64, 48), (100, 33), (7, 150)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_in_float_it_is_within_a_step_of_the_cpu(size: tuple[int, int], interpolation: str) -> None:
    engine = TorchEngine(ImageConfig.parse({"interpolation": interpolation}))
    for height, width in ((427, 640), (640, 427), (101, 150), (30, 20)):
        images = pixels(height, width)
        difference = steps(engine.resample_in_float(images, size), engine.resample(images, size))
        assert difference.max() <= 1
        assert difference.float().mean() < 0.05


def test_overshoot_is_cut_between_the_sides_as_pillow_cuts_it() -> None:
    """Where torchvision, which cuts at the end only, is off by a tenth of the range."""
    board = (torch.arange(40)[:, None] + torch.arange(40)).remainder(2).mul(255).to(torch.uint8).expand(1, 3, 40, 40)
    size = (97, 97)
    loose = torch.nn.functional.interpolate(board.float(), size=size, mode="bicubic", antialias=True)
    exact = by_pillow(board, size)
    assert steps(in_float(board, size), exact).max() <= 1
    assert steps(loose.round().clamp(0, 255).to(torch.uint8), exact).max() > 20


def test_a_large_batch_goes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    made = built()
    seen: list[int] = []

    def counted(self: TorchEngine, images: Tensor, size: tuple[int, int]) -> Tensor:
        seen.append(len(images))
        return images.new_empty(len(images), 3, *size)

    monkeypatch.setattr(TorchEngine, "resample_in_float", counted)
    monkeypatch.setattr(engines, "_MAX_VALUES", 3 * 100 * 80 * 4 + 5)
    assert made.batch(pixels(100, 80, count=10).to("meta")).shape == (10, 3, 64, 48)
    assert seen == [4, 4, 2]
    monkeypatch.setattr(engines, "_MAX_VALUES", 1)
    made.batch(pixels(100, 80, count=2).to("meta"))
    assert seen[3:] == [1, 1]


@pytest.mark.parametrize("size", [(100, 80), (64, 48), (30, 20), (64 * 64 + 1, 100)], ids=str)
@pytest.mark.parametrize("resize_mode", ["longest", "squash"])
def test_what_comes_out_is_where_the_pixels_were(size: tuple[int, int], resize_mode: str) -> None:
    """A fake GPU computes nothing, but refuses tensors of two devices as a real one does."""
    made = built(resize_mode=resize_mode)
    with FakeTensorMode(allow_non_fake_inputs=True):
        images = torch.empty(5, 3, *size, dtype=torch.uint8, device="cuda")
        for given_, count in ((images, 5), (list(images), 5), (images[:0], 0)):
            found = made.batch(given_)
            assert (found.shape, found.device.type) == ((count, 3, 64, 48), "cuda")


@pytest.mark.parametrize(("size", "devices"), [((64 * 64 + 1, 100), ("cuda",)), ((100, 80), ())])
def test_what_a_device_cannot_do_is_done_on_the_cpu(
    size: tuple[int, int], devices: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    scaled = TorchEngine._scaled
    monkeypatch.setattr(engines, "_ON_DEVICE", devices)
    monkeypatch.setattr(
        TorchEngine, "_scaled", lambda self, sheet, size: (seen.append(str(sheet.device)), scaled(self, sheet, size))[1]
    )
    with FakeTensorMode(allow_non_fake_inputs=True):
        images = torch.empty(5, 3, *size, dtype=torch.uint8, device="cuda")
        assert built(resize_mode="squash").batch(images).device.type == "cuda"
    assert seen == ["cpu"]


def test_patches_are_where_the_pixels_were() -> None:
    made = NaFlexPreprocessor(NaFlexImageConfig.parse({"patch_size": 8}), image_size=(48, 48))
    found = made.batch(pixels(120, 70).to("meta"))
    assert {key: value.device.type for key, value in found.items()} == dict.fromkeys(found, "meta")
    assert found["patches"].shape == made.batch(pixels(120, 70))["patches"].shape


def test_one_list_is_on_one_device() -> None:
    image = pixels(20, 30)[0]
    with pytest.raises(InputError, match=r"images\[0\] on cpu and images\[2\] on meta; move the tensors to one"):
        built().batch([image, picture(9, 9), image.to("meta")])


# A model


@pytest.fixture(scope="module")
def model() -> Any:
    return zoo.build("digits-tiny", pretrained="demo")


def test_a_model_takes_raw_pixels(model: Any) -> None:
    images = pixels(50, 40, count=3)
    with torch.inference_mode():
        expected = model.encode_image(arrays(images))
        for given_ in (images, list(images), tuple(images), [images[0], *arrays(images)[1:]]):
            assert torch.equal(model.encode_image(given_), expected)
        torch.testing.assert_close(model.encode_image(images[0]), expected[:1], rtol=0, atol=1e-5)
        assert model.encode_image(images[:0]).shape == (0, expected.shape[1])
        assert torch.equal(model.similarity(images, ["a", "b"]), model.similarity(arrays(images), ["a", "b"]))
        assert torch.equal(model(image=images)[0], model.encode_image(images, normalize=True))


def test_raw_pixels_of_the_right_size_are_normalised_too(model: Any) -> None:
    images = pixels(*model.visual.image_size)
    assert torch.equal(model.encode_image(images), model.encode_image(model.preprocess.batch(images)))


def test_the_engine_of_the_model_holds_for_tensors(model: Any) -> None:
    exact = zoo.build("digits-tiny", pretrained="demo", overrides=["preprocess.engine=pil"])
    images = pixels(120, 100)
    assert torch.equal(exact.preprocess.batch(images), exact.preprocess.batch(arrays(images)))
    assert not torch.equal(exact.preprocess.batch(images), model.preprocess.batch(images))


RAW = torch.zeros(2, 3, 40, 50, dtype=torch.uint8)
WRONG: dict[str, tuple[Any, str]] = {
    "grey": (RAW[:, :1], "a uint8 tensor [B, 3, H, W], found torch.uint8 [2, 1, 40, 50]; repeat the grey channel"),
    "transparency": (RAW[:, [0, 1, 2, 2]], "found torch.uint8 [2, 4, 40, 50]; leave out the fourth channel"),
    "five channels": (RAW[:, [0] * 5], "a uint8 tensor [B, 3, H, W], found torch.uint8 [2, 5, 40, 50]"),
    "channels last": (RAW.permute(0, 2, 3, 1), "[2, 40, 50, 3]; put the channels first with .movedim(-1, -3)"),
    "one, channels last": (RAW[0].permute(1, 2, 0), "[3, H, W], found torch.uint8 [40, 50, 3]; put the channels first"),
    "no channels": (RAW[0, 0], "a uint8 tensor [3, H, W], found torch.uint8 [40, 50]"),
    "videos": (RAW[None], "[1, 2, 3, 40, 50]; flatten what stands before the channels into one dimension"),
    "a batch in a list": ([RAW], "images[0]: expected raw pixels as a uint8 tensor [3, H, W], found torch.uint8 [2, 3, 40"),
    "int64": (RAW.long(), "in floating point, or raw pixels as uint8, found torch.int64 [2, 3, 40, 50]"),
    "int64 in a list": ([RAW[0], RAW[0].long()], "images[1]: expected raw pixels as a uint8 tensor [3, H, W], found torch.int64 [3, 40, 50]; if its values"),
    "bool": (RAW.bool(), "raw pixels as uint8, found torch.bool"),
    "0..1 or 0..255 in floating point": (RAW.float(), "found torch.float32 [2, 3, 40, 50]; preprocess them with model.preprocess, which takes raw pixels as uint8"),
    "raw and preprocessed": ([RAW[0], torch.zeros(3, 12, 12)], "images[1]: expected raw pixels as a uint8 tensor [3, H, W], found torch.float32 [3, 12, 12]; floating point counts as preprocessed"),
    "raw and patches": ([RAW[0], {}], "images[1]: image: expected a PIL image"),
    "no rows": (RAW[:, :, :0], "image: has no pixels (50 x 0 pixels)"),
    "no columns": ([RAW[0, ..., :0]], "images[0]: image: has no pixels (0 x 40 pixels)"),
    "too elongated": (RAW.new_zeros(1, 3, 1, 201), "image: has 201 x 1 pixels, more elongated than 200:1; crop it first"),
    "too large": (RAW.new_zeros(1).expand(1, 3, 8001, 8000), "has 8000 x 8001 pixels, more than the limit of 64,000,000"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("engine", ["torch", "pil"])
def test_what_is_no_raw_pixels_is_told(case: str, engine: str, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    images, message = WRONG[case]
    if engine == "pil":
        config = model.preprocess.config.model_copy(update={"engine": "pil"})
        monkeypatch.setattr(model, "preprocess", ImagePreprocessor(config, image_size=model.visual.image_size))
    with pytest.raises(InputError) as caught:
        model.encode_image(images)
    assert message in str(caught.value)


def test_what_would_grow_beyond_the_limit_is_told() -> None:
    with pytest.raises(
        InputError, match=r"image: its 200 x 1 pixels would be resized to 120000 x 600, more than the lim"
    ):
        built((600, 600)).batch(torch.zeros(2, 3, 1, 200, dtype=torch.uint8))


def test_patches_have_the_limits_of_pictures() -> None:
    made = NaFlexPreprocessor(NaFlexImageConfig(), image_size=(48, 48))
    with pytest.raises(InputError, match="image: has 201 x 1 pixels, more elongated than 200:1"):
        made.batch(torch.zeros(2, 3, 1, 201, dtype=torch.uint8))


# Preprocessors of other plugins


class Means(Preprocessor):
    """Knows arrays only, as one does that was written before there were tensors."""

    image_size = (1, 1)

    def __call__(self, image: Any) -> Tensor:
        assert isinstance(image, np.ndarray) and image.shape[2] == 3 and image.dtype == np.uint8
        if image.max() == 0:
            raise InputError("is black")
        return torch.from_numpy(image.mean(axis=(0, 1), dtype=np.float32)[:, None, None])


class Named(Means):
    """Gives something else than tensors."""

    def __call__(self, image: Any) -> Any:
        return {"mean": super().__call__(image)}

    def collate(self, prepared: Any) -> Any:
        return {"mean": torch.stack([one["mean"] for one in prepared])}


def test_a_preprocessor_that_knows_no_tensors_gets_arrays() -> None:
    images = pixels(20, 30, count=3)
    expected = images.float().mean(dim=(2, 3), keepdim=True)
    for given_ in (images, list(images)):
        torch.testing.assert_close(Means().batch(given_), expected, rtol=1e-5, atol=0)
        torch.testing.assert_close(Named().batch(given_), {"mean": expected}, rtol=1e-5, atol=0)
    assert Means().batch(images[:0]).shape == (0, 3, 1, 1)
    with pytest.raises(InputError, match=r"^images\[1\]: is black"):
        Means().batch([images[0], torch.zeros_like(images[0])])
    assert math.isclose(Means().batch([images[0]])[0, 0, 0, 0].item(), expected[0, 0, 0, 0].item(), rel_tol=1e-5)
