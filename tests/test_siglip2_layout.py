"""SigLIP 2 of transformers for pictures in their own aspect ratio: built from its folder, with its features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import zoo
from foreign import WORDS, assert_close
from zoo.conversion import export
from zoo_core.errors import CheckpointError, ConfigError

Json = dict[str, Any]

SIZES: Json = {"intermediate_size": 60, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT: Json = SIZES | {"hidden_size": 24, "vocab_size": WORDS, "max_position_embeddings": 12, "projection_size": 32}
VISION: Json = SIZES | {"hidden_size": 32, "patch_size": 8, "num_patches": 25}
IMAGES: Json = {
    "image_processor_type": "Siglip2ImageProcessor",
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "resample": 2,
    "patch_size": 8,
    "max_num_patches": 20,
}


def siglip2_folder(folder: Path) -> Any:
    """Fill a folder as transformers does, and return its model."""
    import transformers

    model = transformers.Siglip2Model(transformers.Siglip2Config(text_config=TEXT, vision_config=VISION)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGES))
    return model


@pytest.fixture
def theirs(tmp_path: Path) -> Any:
    return siglip2_folder(tmp_path)


def test_patches_of_any_grid_give_the_features_of_transformers(theirs: Any, tmp_path: Path) -> None:
    ours = zoo.build(tmp_path)
    generator = torch.Generator().manual_seed(0)
    grids = [(5, 4), (2, 7), (3, 3)]
    patches = torch.zeros(3, 20, 8 * 8 * 3)
    coord, valid = torch.zeros(3, 20, 2, dtype=torch.int64), torch.zeros(3, 20, dtype=torch.bool)
    for row, (height, width) in enumerate(grids):
        count = height * width
        patches[row, :count] = torch.randn(count, 8 * 8 * 3, generator=generator)
        coord[row, :count] = torch.cartesian_prod(torch.arange(height), torch.arange(width))
        valid[row, :count] = True
    ids = torch.randint(0, WORDS, (3, 12), generator=generator)
    with torch.no_grad():
        output = theirs(
            input_ids=ids, pixel_values=patches, pixel_attention_mask=valid.int(), spatial_shapes=torch.tensor(grids)
        )
        found: Any = {"patches": patches, "patch_coord": coord, "patch_valid": valid}
        assert_close(ours.encode_image(found, normalize=True), output.image_embeds)
        assert_close(ours.encode_text(ids, normalize=True), output.text_embeds)


def test_pictures_become_the_patches_that_transformers_makes_of_them(theirs: Any, tmp_path: Path) -> None:
    import transformers

    noise = torch.randint(0, 256, (50, 70, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    picture = Image.fromarray(noise.numpy())
    processor: Any = transformers.Siglip2ImageProcessorPil.from_pretrained(tmp_path)
    expected = processor(picture, return_tensors="pt")
    found: Any = zoo.build(tmp_path, overrides=["preprocess.engine=pil"]).preprocess(picture)
    count = int(expected.pixel_attention_mask.sum())
    assert_close(found["patches"], expected.pixel_values[0, :count])


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("preprocessor_config.json", {"patch_size": 16}, "16 is not the patch_size 8 of the tower"),
        ("preprocessor_config.json", {"max_num_patches": None}, "max_num_patches: required key is missing"),
        ("config.json", {"vision_config": VISION | {"num_patches": 24}}, "24 patches are no square"),
        ("config.json", {"vision_config": VISION | {"layer_norm_eps": 1e-5}}, "is 1e-06 in timm's backbones"),
        ("config.json", {"text_config": TEXT | {"projection_size": 40}}, "is not vision_config.hidden_size 32"),
    ],
)
def test_what_its_folder_states_and_we_cannot_build_is_refused(
    file: str, change: Json, message: str, theirs: Any, tmp_path: Path
) -> None:
    data = json.loads((tmp_path / file).read_text())
    (tmp_path / file).write_text(json.dumps(data | change))
    with pytest.raises(ConfigError) as error:
        zoo.build(tmp_path)
    assert message in str(error.value)
    assert str(tmp_path / file) in str(error.value)


@pytest.mark.usefixtures("theirs")
def test_that_it_is_not_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"SigLIP 2 of any aspect ratio \(Siglip2Model\) is read here and not writ"
    ):
        export(zoo.build(tmp_path), tmp_path / "out", to="transformers")
    assert not (tmp_path / "out").exists()
