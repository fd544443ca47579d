"""What becomes of transparent pictures: bit for bit as open_clip and transformers have it, and as a config says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import zoo
from support.images import picture
from zoo.saved.manifest import ORIGIN, digest_of, file_digests
from zoo_core.errors import ConfigError
from zoo_images.config import ImageConfig
from zoo_images.preprocessor import ImagePreprocessor
from zoo_images.reading import OpenOptions, open_image

SIDE = 24
PLAIN: dict[str, Any] = {"mean": (0, 0, 0), "std": (1, 1, 1)}
TINY: dict[str, Any] = {
    "model": "clip",
    "embed_dim": 16,
    "vision": {"tower": "vit", "image_size": 16, "patch_size": 8, "width": 64, "layers": 1},
    "text": {
        "tower": "clip-transformer",
        "context_length": 16,
        "vocab_size": 49408,
        "width": 64,
        "heads": 1,
        "layers": 1,
    },
    "tokenizer": {"type": "clip-bpe"},
    "preprocess": {"type": "image"},
}
NAMES = [
    "RGBA",
    "LA",
    "P with a clear index",
    "P with opacities",
    "RGB with a clear colour",
    "L with a clear grey",
    "P",
]


def transparent(name: str, folder: Path, size: tuple[int, int] = (61, 47)) -> Path:
    """Write a PNG file whose transparent parts hide colours of their own."""
    image, path = picture(*size), folder / f"{name}.png"
    opacity = picture(*size, "L").rotate(180)
    opacity = opacity.point([0 if level < 90 else 255 if level > 160 else level for level in range(256)])
    if name in ("RGBA", "LA"):
        image = image.convert("L" if name == "LA" else "RGB")
        image.putalpha(opacity)
        image.save(path)
    elif name.startswith("P"):
        clear = {"P with a clear index": 3, "P with opacities": bytes(range(0, 256, 2)) * 2}.get(name)
        image.quantize(256).save(path, **({} if clear is None else {"transparency": clear}))
    else:
        image = image.convert(name.split()[0])
        image.save(path, transparency=image.getpixel((5, 5)))
    return path


def prepared(path: Path, side: int = SIDE, **options: Any) -> torch.Tensor:
    return ImagePreprocessor(ImageConfig(**PLAIN, **options), image_size=(side, side))(path)


@pytest.mark.filterwarnings("ignore:Palette images with Transparency:UserWarning")
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("name", NAMES)
def test_the_published_engine_gives_the_bits_of_open_clip(name: str, mode: Any, tmp_path: Path) -> None:
    if name.startswith("P") and mode == "longest":
        return  # open_clip pads such a picture with the first colour of its palette
    path = transparent(name, tmp_path)
    theirs = open_clip.image_transform(SIDE, is_train=False, resize_mode=mode, **PLAIN)
    assert torch.equal(prepared(path, engine="pil", resize_mode=mode), theirs(Image.open(path)))


@pytest.mark.parametrize("name", ["RGBA", "LA"])
def test_a_picture_of_the_right_size_is_as_in_open_clip_too(name: str, tmp_path: Path) -> None:
    path = transparent(name, tmp_path, (SIDE, SIDE))
    theirs = open_clip.image_transform(SIDE, is_train=False, **PLAIN)(Image.open(path))
    for engine in ("pil", "torch"):
        assert torch.equal((prepared(path, engine=engine) * 255).round(), (theirs * 255).round())


@pytest.mark.parametrize("name", ["RGBA", "LA", "RGB with a clear colour", "L with a clear grey"])
def test_the_other_engine_is_within_a_step_of_it(name: str, tmp_path: Path) -> None:
    path = transparent(name, tmp_path)
    steps = ((prepared(path) - prepared(path, engine="pil")) * 255).abs()
    assert steps.max() < 1.001
    assert steps.mean() < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_white_is_what_transformers_makes_of_it(name: str, tmp_path: Path) -> None:
    from transformers.image_transforms import convert_to_rgb

    path = transparent(name, tmp_path)
    found = open_image(path, OpenOptions(alpha="white"))
    assert np.array_equal(np.asarray(found), convert_to_rgb(Image.open(path), return_numpy=True))
    for engine in ("pil", "torch"):
        flat = ImagePreprocessor(ImageConfig(**PLAIN, engine=engine), image_size=(SIDE, SIDE))(found)
        assert torch.equal(prepared(path, engine=engine, alpha="white"), flat)


def test_each_choice_is_what_its_formula_says(tmp_path: Path) -> None:
    """Over a colour: a * x + (1 - a) * colour; `drop` divides the mean of a * x by that of a; `ignore` is x alone."""
    x, a = np.float64([[200.0, 40.0]]), np.float64([[0.2, 1.0]])
    pixels = np.stack([x, x, x, a * 255], axis=-1).round().astype(np.uint8)
    Image.fromarray(pixels.repeat(2, 0).repeat(2, 1)).resize((4, 2), Image.Resampling.NEAREST).save(tmp_path / "a.png")
    a = pixels[..., 3] / 255
    for alpha, expected in {
        "white": a * x + (1 - a) * 255,
        "black": a * x,
        "ignore": x,
    }.items():
        found = np.asarray(open_image(tmp_path / "a.png", OpenOptions(alpha=alpha)), np.float64)[0, ::2, 0]
        assert np.abs(found - expected[0]).max() <= 1, alpha
    Image.fromarray(pixels).save(tmp_path / "b.png")
    one = ImagePreprocessor(ImageConfig(**PLAIN, interpolation="bilinear", resize_mode="squash"), image_size=(1, 1))(
        tmp_path / "b.png"
    )
    assert abs(one[0, 0, 0].item() * 255 - (a * x).sum() / a.sum()) < 2


def test_clear_pixels_do_not_show_the_colours_below_them(tmp_path: Path) -> None:
    Image.new("RGBA", (50, 40), (250, 10, 120, 0)).save(tmp_path / "a.png")
    for engine in ("pil", "torch"):
        shown = {
            alpha: prepared(tmp_path / "a.png", engine=engine, alpha=alpha) for alpha in ("drop", "black", "white")
        }
        assert [value.unique().tolist() for value in shown.values()] == [[0], [0], [1]]
        uncovered = prepared(tmp_path / "a.png", engine=engine, alpha="ignore")[:, 0, 0] * 255
        assert uncovered.round().tolist() == [250, 10, 120]


def test_grey_of_16_bits_keeps_its_one_clear_value(tmp_path: Path) -> None:
    pixels = np.uint16([[1000, 30_000, 30_001]])
    Image.fromarray(pixels).save(tmp_path / "a.png", transparency=30_000)
    found = np.asarray(open_image(tmp_path / "a.png", OpenOptions(alpha="white")))[0, :, 0]
    assert found.tolist() == [4, 255, 117]
    assert np.asarray(open_image(tmp_path / "a.png", OpenOptions(alpha="drop"))).tolist() == [[4, 117, 117]]


@pytest.mark.parametrize("type", ["image", "naflex"])
def test_the_choice_is_part_of_the_config_of_every_preprocessor(type: str) -> None:
    base = {"type": type} | ({"patch_size": 8} if type == "naflex" else {})
    assert zoo.preprocess("vit-s32").config.alpha == "drop"
    with pytest.raises(
        ConfigError, match=r"preprocess\.alpha: 'grey' is not known.*allowed: black, drop, ignore, white"
    ):
        zoo.config("vit-s32", [f"preprocess={json.dumps(base | {'alpha': 'grey'})}"])


def test_training_crops_are_resampled_as_open_clip_resamples_them(tmp_path: Path) -> None:
    path = transparent("RGBA", tmp_path)
    config = ImageConfig(**PLAIN, engine="pil")
    torch.manual_seed(3)
    ours = ImagePreprocessor(config, image_size=(SIDE, SIDE), train=True)(path)
    torch.manual_seed(3)
    theirs = open_clip.image_transform(SIDE, is_train=True, aug_cfg={"scale": (0.9, 1.0)}, **PLAIN)(Image.open(path))
    assert torch.equal(ours, theirs)


def _as_saved_before(folder: Path) -> None:
    """Take the key out of a saved folder, as folders are that were saved before it was there."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["preprocess"].pop("alpha") == "drop"
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    with safe_open(folder / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    metadata["zoo.config"] = json.dumps(config)
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors", metadata=metadata)
    origin = json.loads((folder / ORIGIN).read_text())
    origin["files"] = file_digests(folder)
    (folder / ORIGIN).write_text(json.dumps(origin | {"digest": digest_of(origin)}))


def test_a_folder_that_was_saved_before_the_choice_keeps_its_result(tmp_path: Path) -> None:
    folder = zoo.save(zoo.build(TINY), tmp_path / "model")
    assert zoo.load(folder).config.preprocess.alpha == "drop"
    _as_saved_before(folder)
    for model in (
        zoo.load(folder, probe=True),
        zoo.build(folder),
        zoo.build(folder, overrides=["preprocess.exif=true"]),
    ):
        assert model.config.preprocess.alpha == "ignore"
    assert all(one.ok for one in zoo.verify(folder))
    assert zoo.build(folder, overrides=["preprocess.alpha=white"]).config.preprocess.alpha == "white"
    assert zoo.load(zoo.save(zoo.load(folder), tmp_path / "again")).config.preprocess.alpha == "ignore"
    path = transparent("RGBA", tmp_path)
    uncovered = ImagePreprocessor(ImageConfig(alpha="ignore"), image_size=(16, 16))(path)
    assert torch.equal(zoo.load(folder).preprocess(path), uncovered)


def test_another_way_of_a_library_is_told_where_a_model_is_converted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = zoo.save(zoo.build(TINY), tmp_path / "model")
    zoo.convert(folder, tmp_path / "theirs", to="transformers")
    assert "preprocess.alpha is 'drop' and would be read as 'white', which transformers" in caplog.text
    assert zoo.build(tmp_path / "theirs").config.preprocess.alpha == "white"
    caplog.clear()
    zoo.convert(tmp_path / "theirs", tmp_path / "back", to="open_clip", overrides=["tokenizer.type=clip-bpe"])
    assert "preprocess.alpha is 'white' and would be read as 'drop', which open_clip" in caplog.text
    caplog.clear()
    zoo.convert(folder, tmp_path / "same", to="open_clip")
    assert "alpha" not in caplog.text
