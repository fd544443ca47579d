"""SigLIP 2 of transformers for pictures in their own aspect ratio: built from its folder, with its features, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import zoo
from support import peer
from support.checkpoints.foreign import WORDS, assert_close, equal, save_gemma_tokenizer, save_tokenizer
from support.checkpoints.siglip2_folders import IMAGES, TEXT, VISION, siglip2_folder
from support.models.tiny_architectures import SIGLIP, changed, model_of
from zoo.transfer.convert import export
from zoo.transfer.hostile_captions import DAMAGED, PLAIN, SPELLED
from zoo_core.errors import CheckpointError, ConfigError

Json = dict[str, Any]


@pytest.fixture
def theirs(tmp_path: Path) -> Any:
    return siglip2_folder(tmp_path)


GRIDS = [(5, 4), (2, 7), (3, 3)]


def patches_of(grids: list[tuple[int, int]]) -> Any:
    """Return a patch batch of noise, a picture for each grid, padded to 20 patches."""
    generator = torch.Generator().manual_seed(0)
    patches = torch.zeros(len(grids), 20, 8 * 8 * 3)
    coord, valid = torch.zeros(len(grids), 20, 2, dtype=torch.int64), torch.zeros(len(grids), 20, dtype=torch.bool)
    for row, (height, width) in enumerate(grids):
        count = height * width
        patches[row, :count] = torch.randn(count, 8 * 8 * 3, generator=generator)
        coord[row, :count] = torch.cartesian_prod(torch.arange(height), torch.arange(width))
        valid[row, :count] = True
    return {"patches": patches, "patch_coord": coord, "patch_valid": valid}


def theirs_of(batch: Any) -> Json:
    """Return a patch batch as transformers has it."""
    return {
        "pixel_values": batch["patches"],
        "pixel_attention_mask": batch["patch_valid"].int(),
        "spatial_shapes": batch["patch_coord"].amax(dim=1) + 1,
    }


def noise() -> Image.Image:
    pixels = torch.randint(0, 256, (50, 70, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def test_patches_of_any_grid_give_the_features_of_transformers(theirs: Any, tmp_path: Path) -> None:
    ours = zoo.build(tmp_path)
    found = patches_of(GRIDS)
    ids = torch.randint(0, WORDS, (3, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = theirs(input_ids=ids, **theirs_of(found))
        assert_close(ours.encode_image(found, normalize=True), output.image_embeds)
        assert_close(ours.encode_text(ids, normalize=True), output.text_embeds)


def test_pictures_become_the_patches_that_transformers_makes_of_them(theirs: Any, tmp_path: Path) -> None:
    import transformers

    processor: Any = transformers.Siglip2ImageProcessorPil.from_pretrained(tmp_path)
    expected = processor(noise(), return_tensors="pt")
    found: Any = zoo.build(tmp_path, overrides=["preprocess.engine=pil"]).preprocess(noise())
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


NAFLEX: Json = {
    "model": "custom-text-clip",
    "embed_dim": 32,
    "init_logit_bias": -10,
    "vision": {
        "tower": "naflex",
        "name": "naflexvit_base_patch16_siglip",
        "image_size": 32,
        "patch_size": 8,
        "pool": "map",
        "proj": "none",
        "kwargs": {"embed_dim": 32, "depth": 2, "num_heads": 2, "pos_embed_grid_size": [3, 3]},
    },
    "text": SIGLIP["text"] | {"activation": "gelu_tanh"},
    "tokenizer": SIGLIP["tokenizer"],
    "preprocess": {"type": "naflex", "patch_size": 8, "image_seq_len": 16, "interpolation": "bicubic"},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_its_folder_comes_back_bit_for_bit(theirs: Any, dtype: torch.dtype, tmp_path: Path) -> None:
    theirs.to(dtype).save_pretrained(tmp_path)
    there = zoo.convert(tmp_path, tmp_path / "there", to="transformers")
    assert equal(load_file(there / "model.safetensors"), load_file(tmp_path / "model.safetensors"))
    config, again = zoo.build(tmp_path).config, zoo.build(there).config
    assert (again.vision, again.text, again.preprocess) == (config.vision, config.text, config.preprocess)


@pytest.mark.parametrize("nonscalar", [False, True])
def test_transformers_loads_what_is_written_for_it(nonscalar: bool, tmp_path: Path) -> None:
    import transformers

    ours = model_of({**NAFLEX, "nonscalar_logit_scale": nonscalar})
    folder = export(ours, tmp_path / "model", to="transformers")
    model, told = transformers.AutoModel.from_pretrained(folder, output_loading_info=True)
    assert type(model).__name__ == "Siglip2Model"
    assert not any(told.values()), told
    patches, ids = patches_of(GRIDS), peer.captions(ours, len(GRIDS))
    with torch.no_grad():
        output = model.eval()(input_ids=ids, **theirs_of(patches))
        assert_close(ours.encode_image(patches, normalize=True), output.image_embeds)
        assert_close(ours.encode_text(ids, normalize=True), output.text_embeds)
        torch.testing.assert_close(ours.get_logits(patches, ids)[0], output.logits_per_image, atol=1e-4, rtol=1e-5)


def test_transformers_prepares_pictures_and_captions_as_the_model_does(tmp_path: Path) -> None:
    import transformers

    save_gemma_tokenizer(tmp_path / "tokenizer")
    read_as_it_is = {"name": str(tmp_path / "tokenizer"), "cleaning": "none", "special_tokens_in_text": True}
    ours = model_of(changed({"tokenizer": read_as_it_is}, NAFLEX))
    with pytest.raises(CheckpointError, match=r"id 0 of 'This is a photo of a CAT\.' is 61 and would be read as 35$"):
        export(ours, tmp_path / "model", to="transformers")
    (tmp_path / "tokenizer" / "config.json").write_text('{"model_type": "siglip2"}')  # else it keeps case
    ours = model_of(ours.config)
    folder = export(ours, tmp_path / "model", to="transformers")
    images = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    assert type(images).__name__ == "Siglip2ImageProcessorPil"
    assert (images.patch_size, images.max_num_patches, images.resample) == (8, 16, 3)
    expected = images(noise(), return_tensors="pt")
    found = zoo.preprocess(zoo.config(ours.config, ["preprocess.engine=pil"]))(noise())
    assert_close(found["patches"], expected.pixel_values[0, : int(expected.pixel_attention_mask.sum())])
    captions: Any = transformers.AutoTokenizer.from_pretrained(folder)
    assert type(captions).__name__ == "Siglip2Tokenizer"
    texts = [*PLAIN, *SPELLED, *DAMAGED]
    rows = captions(texts, padding="max_length", max_length=12, truncation=True).input_ids
    assert rows == ours.tokenizer(texts, overflow="truncate").tolist()


def with_spaces_as_bytes(folder: Path) -> None:
    """Fill a folder with a tokenizer of the pieces of Gemma's that has another pipeline."""
    save_gemma_tokenizer(folder)
    for name, change in (
        ("tokenizer.json", {"normalizer": None}),
        ("tokenizer_config.json", {"tokenizer_class": "TokenizersBackend"}),
    ):
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | change))


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (with_spaces_as_bytes, "the tokenizer: id 1 of 'a photo of a cat, and 2 dogs' is 132 and would be read as 5"),
        (save_tokenizer, "tokenizer 'FOLDER' has 602 ids, not 600"),
    ],
)
def test_a_tokenizer_that_transformers_would_read_as_another_is_refused(
    fill: Any, message: str, tmp_path: Path
) -> None:
    fill(tmp_path / "tokenizer")
    ours = model_of(changed({"tokenizer": {"name": str(tmp_path / "tokenizer")}}, NAFLEX))
    with pytest.raises(CheckpointError) as error:
        export(ours, tmp_path / "folder", to="transformers")
    assert "transformers SigLIP 2 cannot express the tokenizer: " in str(error.value)
    assert message.replace("FOLDER", str(tmp_path / "folder")) in str(error.value)
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision": {"name": "naflexvit_base_patch16_gap"}}, "vision.name: naflexvit_base_patch16_gap (it has naflex"),
        ({"vision": {"kwargs": {"reg_tokens": 4}}}, "vision.kwargs.reg_tokens (it has "),
        ({"vision": {"kwargs": {"act_layer": "relu"}}}, "vision.kwargs.act_layer: relu (it has quick_gelu, gelu, gelu"),
        ({"vision": {"kwargs": {"pos_embed_grid_size": [3, 4]}}}, "pos_embed_grid_size: [3, 4] (its positions are a"),
        ({"vision": {"image_size": [32, 40]}}, "vision.image_size: [32, 40]"),
        ({"vision": {"image_size": 64}}, "vision.image_size is [64, 64] and would be read as [32, 32]"),
        (
            {"vision": {"patch_size": [8, 16]}, "preprocess": {"patch_size": [8, 16]}},
            "vision.patch_size: [8, 16]",
        ),
        ({"vision": {"pool": "avg"}}, "no place for visual.trunk.fc_norm.bias"),
        ({"vision": {"proj": "linear"}}, "no place for visual.head.proj.weight"),
        ({"vision": {"patch_dropout": 0.5}}, "vision.patch_dropout is 0.5 and would be read as 0.0"),
        ({"text": {"causal": True}}, "text.causal is True and would be read as False"),
        ({"init_logit_bias": None}, "a model without logit_bias (init_logit_bias: null)"),
        ({"preprocess": {"image_seq_len": None}}, "preprocess.image_seq_len is None and would be read as 16"),
        ({"preprocess": {"exif": True}}, "preprocess.exif is True and would be read as False"),
    ],
)
def test_what_its_class_has_not_is_refused_by_name_and_nothing_is_written(
    change: Json, message: str, tmp_path: Path
) -> None:
    ours = model_of(changed(change, NAFLEX))
    with pytest.raises(CheckpointError) as error:
        export(ours, tmp_path / "folder", to="transformers")
    assert message in str(error.value)
    assert "transformers SigLIP 2 " in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("patches", "size"), [(36, 48), (20, 40)])
def test_images_are_the_square_of_all_patches_or_of_the_positions(
    patches: int, size: int, theirs: Any, tmp_path: Path
) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(IMAGES | {"max_num_patches": patches}))
    ours = zoo.build(tmp_path)
    assert ours.visual.image_size == (size, size)
    assert ours.config.preprocess.image_seq_len == patches
