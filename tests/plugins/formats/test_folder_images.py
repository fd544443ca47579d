"""Files of image processors as transformers published them since 2021: pictures become what they become there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import zoo
from support.checkpoints.foreign import assert_close
from zoo_core.errors import ConfigError
from zoo_formats.transformers.image_processor import PROCESSORS

Json = dict[str, Any]

SIDES = [(50, 70), (70, 50), (224, 224), (300, 448), (21, 90)]
COLOURS: Json = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
SQUARE: Json = {"height": 224, "width": 224}
SIGLIP: Json = {"image_processor_type": "SiglipImageProcessor", "size": SQUARE, "resample": 3}
FAST: Json = dict.fromkeys(
    ("crop_size", "device", "disable_grouping", "do_center_crop", "do_convert_rgb", "do_pad", "pad_size")
) | {"data_format": "channels_first", "default_to_square": True, "input_data_format": None, "return_tensors": None}

PUBLISHED: list[tuple[str, Json]] = [
    ("clip", {}),
    (
        "clip",
        {"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 224, "resample": 3} | COLOURS,
    ),
    (
        "clip",
        {"feature_extractor_type": "CLIPFeatureExtractor", "do_center_crop": True, "do_resize": True, "size": 224},
    ),
    ("clip", {"feature_extractor_type": "CLIPFeatureExtractor", "size": {"shortest_edge": 224}, "crop_size": SQUARE}),
    ("clip", {"image_processor_type": "CLIPImageProcessorFast", "size": {"shortest_edge": 224, "longest_edge": None}}),
    ("clip", {"image_processor_type": "ChineseCLIPImageProcessor", "size": [224, 224], "do_center_crop": False}),
    ("clip", {"image_processor_type": "ViTImageProcessor", "size": 224}),
    ("clip", {"feature_extractor_type": "ViTFeatureExtractor", "size": 224, "image_mean": 0.5, "image_std": 0.25}),
    ("clip", {"image_processor_type": "BitImageProcessor", "crop_size": [224, 224]}),
    ("clip", {"size": SQUARE, "do_center_crop": None, "crop_pct": None}),
    ("clip", {"do_pad": True, "do_convert_rgb": False, "resample": 2}),
    ("clip", {"do_pad": True, "pad_size": SQUARE, "do_normalize": None}),
    ("clip", {"size": 224, "default_to_square": True}),
    ("siglip", {}),
    ("siglip", SIGLIP | {"do_convert_rgb": None, "do_normalize": True, "do_rescale": True, "do_resize": True}),
    ("siglip", SIGLIP | FAST | {"image_processor_type": "SiglipImageProcessorFast"}),
    ("siglip", SIGLIP | {"crop_size": {"height": 7, "width": 7}}),
    ("siglip2", {}),
    ("siglip2", {"image_processor_type": "Siglip2ImageProcessor", "do_convert_rgb": None, "max_num_patches": 64}),
    ("siglip2", FAST | {"image_processor_type": "Siglip2ImageProcessorFast", "resample": 3, "patch_size": 16}),
]


def folder_of(model_type: str, images: Json, folder: Path, name: str = "preprocessor_config.json") -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / name).write_text(json.dumps(images))
    return folder


def picture(height: int, width: int) -> Image.Image:
    pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def stated(folder: Path) -> Any:
    from zoo.checkpoints.open import read_foreign_config

    return read_foreign_config(folder)


def preprocess(folder: Path) -> Any:
    return zoo.preprocess(zoo.config(stated(folder), ["preprocess.engine=pil"]))


@pytest.mark.parametrize(("model_type", "images"), PUBLISHED)
def test_pictures_become_what_transformers_makes_of_them(model_type: str, images: Json, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor

    theirs: Any = AutoImageProcessor.from_pretrained(folder_of(model_type, images, tmp_path), backend="pil")
    ours = preprocess(tmp_path)
    for sides in SIDES:
        found, expected = ours(picture(*sides)), theirs(picture(*sides), return_tensors="pt")
        if model_type == "siglip2":
            count = int(expected.pixel_attention_mask.sum())
            assert_close(found["patches"], expected.pixel_values[0, :count])
        else:
            assert_close(found, expected.pixel_values[0])


def test_a_name_of_a_way_to_resample_is_what_it_says(tmp_path: Path) -> None:
    found: Any = zoo.config(stated(folder_of("clip", {"resample": "bilinear"}, tmp_path))).preprocess
    assert found.interpolation == "bilinear"


def test_the_processors_of_a_folder_count_before_the_file_of_one(tmp_path: Path) -> None:
    from transformers import AutoImageProcessor

    folder_of("clip", COLOURS, tmp_path)
    folder_of("clip", {"image_processor": {"resample": 2}}, tmp_path, "processor_config.json")
    theirs: Any = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    assert_close(preprocess(tmp_path)(picture(50, 70)), theirs(picture(50, 70), return_tensors="pt").pixel_values[0])
    nested = '{"image_processor": {\n"resample": 1}}'
    (tmp_path / "processor_config.json").write_text(nested)
    with pytest.raises(ConfigError, match=r"processor_config.json:2:\d+: resample: cannot be expressed"):
        stated(tmp_path)


@pytest.mark.parametrize("name", PROCESSORS)
def test_what_a_file_leaves_out_is_what_the_class_has(name: str) -> None:
    import transformers

    theirs: Any = getattr(transformers, f"{name}Pil")
    keys = {"size", "crop_size", "do_center_crop", "resample", "image_mean", "image_std", "patch_size"}
    keys |= {"max_num_patches", "default_to_square"}
    own = {key: PROCESSORS[name].get(key) for key in keys}
    if "patch_size" in PROCESSORS[name]:
        own |= {"size": None, "default_to_square": True}  # nobody reads them
    assert own == {key: getattr(theirs, key, None) for key in keys}
    assert theirs.rescale_factor == 1 / 255
    assert all(getattr(theirs, f"do_{one}") for one in ("resize", "rescale", "normalize"))


@pytest.mark.parametrize(
    ("model_type", "images", "message"),
    [
        (
            "clip",
            {"image_processor_type": "ConvNextImageProcessor"},
            "image_processor_type: 'ConvNextImageProcessor' is",
        ),
        (
            "clip",
            {"feature_extractor_type": "FlavaFeatureExtractor"},
            "'FlavaFeatureExtractor' is not read (allowed: CLIP",
        ),
        ("clip", {"image_processor_type": ["x"]}, "image_processor_type: ['x'] is not read"),
        ("clip", {"size": {"shortest_edge": 256}}, "size {'shortest_edge': 256} with crop_size"),
        ("clip", {"size": {"shortest_edge": 224, "longest_edge": 300}}, "'longest_edge': 300} with crop_size"),
        ("clip", {"size": {"longest_edge": 224}}, "size {'longest_edge': 224} with crop_size"),
        ("clip", {"crop_size": {"shortest_edge": 224}}, "with crop_size {'shortest_edge': 224} cannot be expressed"),
        ("clip", {"do_center_crop": False}, "size {'shortest_edge': 224} without a crop cannot be expressed"),
        ("clip", {"size": None}, "size None with crop_size"),
        ("clip", {"size": [224]}, "size [224] with crop_size"),
        ("clip", {"pad_size": {"height": 256, "width": 256}, "do_pad": True}, "pad_size: cannot be expressed: nothing"),
        ("clip", {"resample": None}, "resample"),
        ("clip", {"resample": "lanczos"}, "resample"),
        ("clip", {"do_resize": None}, "do_resize: cannot be expressed"),
        ("clip", {"crop_pct": 0.9}, "crop_pct: unknown key"),
        ("clip", {"image_processor_type": "Siglip2ImageProcessor"}, "patch_size: is for towers that take patches"),
        ("siglip", {"size": 224}, "size 224 without a crop cannot be expressed"),
        ("siglip2", {"image_processor_type": "SiglipImageProcessor"}, "None is not the patch_size 16 of the tower"),
    ],
)
def test_what_would_change_the_result_is_refused_by_name(
    model_type: str, images: Json, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        zoo.config(stated(folder_of(model_type, images, tmp_path)))
    assert message in str(error.value)
    assert str(tmp_path / "preprocessor_config.json") in str(error.value)
