"""NaFlex: patch batches at the door of a model, timm's NaFlexViT as a tower, and pictures in their own aspect ratio.

timm is the reference: backbones at toy size with the same weights, its own transform and its own collator.
"""

from __future__ import annotations

import copy
import itertools
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform
from timm.data.naflex_dataset import NaFlexCollator
from timm.data.naflex_transforms import RandomResizedCropToSequence, get_image_size_for_seq

import zoo
from support.models.tiny_configs import TINY
from support.peer import randomized
from zoo.embeddings.encode import embed_images
from zoo.evaluation.zero_shot import classify
from zoo_core.errors import ConfigError, ImageFileError, InputError
from zoo_core.images.patches import check_patches, pad_patches, patchify
from zoo_images.config import NaFlexImageConfig
from zoo_images.naflex import NaFlexPreprocessor, fitted_size
from zoo_timm.config import NaFlexConfig
from zoo_timm.naflex import NaFlexTower

torch.set_num_threads(1)
pytestmark = pytest.mark.usefixtures("width_first")

TOLERANCE = 1e-5
PATCH = 8
SMALL: dict[str, Any] = {"embed_dim": 32, "depth": 3, "num_heads": 2, "pos_embed_grid_size": [4, 3]}
SWIGLU: dict[str, Any] = {"swiglu_mlp": True, "mlp_ratio": 2.6666667, "attn_pool_mlp_ratio": 4.0}
TOWERS: dict[str, dict[str, Any]] = {
    "map": {"name": "naflexvit_base_patch16_siglip", "pool": "map", "proj": "none", "kwargs": SMALL},
    "mean": {"name": "naflexvit_base_patch16_gap", "pool": "avg", "kwargs": SMALL},
    "swiglu": {"name": "naflexvit_base_patch16_map", "pool": "map", "kwargs": SMALL | SWIGLU},
    "class token": {
        "name": "naflexvit_base_patch16_gap",
        "pool": "token",
        "proj": "mlp",
        "kwargs": SMALL | {"class_token": True, "fc_norm": False},
    },
    "factorized": {"name": "naflexvit_base_patch16_parfac_gap", "pool": "avgmax", "proj": "head", "kwargs": SMALL},
    "rotary": {"name": "naflexvit_so150m2_patch16_reg1_gap", "pool": "max", "kwargs": SMALL | {"rope_type": "axial"}},
}
"""Kind -> config of a toy tower of it."""
EMBED = 32


def tower(values: dict[str, Any], embed_dim: int = EMBED) -> NaFlexTower:
    config = NaFlexConfig.parse({"image_size": [24, 32], "patch_size": PATCH, **values})
    return NaFlexTower(config, embed_dim=embed_dim).eval()


def pictures(*grids: tuple[int, int], patch: int = PATCH) -> list[dict[str, torch.Tensor]]:
    """Return random pictures of so many rows and columns of patches."""
    source = torch.Generator().manual_seed(0)
    return [
        patchify(torch.randn(3, rows * patch, columns * patch, generator=source), (patch, patch))
        for rows, columns in grids
    ]


GRIDS = ((3, 4), (4, 3), (1, 5), (2, 2))


@pytest.fixture(scope="module", params=TOWERS)
def pair(request: pytest.FixtureRequest) -> tuple[NaFlexTower, Any]:
    """Return our tower of a kind, and timm's own backbone with the same weights."""
    values = TOWERS[request.param]
    ours = randomized(tower(values))
    head = {"head": EMBED, "none": 0}.get(values.get("proj", ""), 0)
    theirs = timm.create_model(
        values["name"], **values["kwargs"], patch_size=PATCH, num_classes=head, global_pool=values["pool"]
    ).eval()
    if values.get("proj", "linear") in ("linear", "mlp"):  # built with the backbone's own pool, which places its norms
        theirs = timm.create_model(values["name"], **values["kwargs"], patch_size=PATCH).eval()
        theirs.reset_classifier(0, global_pool=values["pool"])
    theirs.load_state_dict(ours.trunk.state_dict())
    return ours, theirs


def same(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


# Beside timm


@torch.inference_mode()
def test_features_are_timms(pair: tuple[NaFlexTower, Any]) -> None:
    ours, theirs = pair
    batch = pad_patches(pictures(*GRIDS))
    features = ours(batch)
    assert features.std() > 1e-3
    same(features, ours.head(theirs(batch)))
    images = torch.randn(2, 3, 40, 24)
    same(ours(images), ours.head(theirs(images)))


@torch.inference_mode()
def test_names_and_shapes_are_timms(pair: tuple[NaFlexTower, Any]) -> None:
    ours, theirs = pair
    found = {key.removeprefix("trunk."): value.shape for key, value in ours.state_dict().items() if "trunk." in key}
    assert found == {key: value.shape for key, value in theirs.state_dict().items()}


@torch.inference_mode()
@pytest.mark.parametrize("norm", [False, True])
def test_intermediates_are_timms_and_padding_is_zero(pair: tuple[NaFlexTower, Any], norm: bool) -> None:
    ours, theirs = pair
    batch = pad_patches(pictures(*GRIDS))
    valid = batch["patch_valid"]
    found = ours.forward_intermediates(
        batch, output_fmt="NLC", indices=[0, 2], normalize_intermediates=norm, output_extra_tokens=True
    )
    expected = theirs.forward_intermediates(
        batch["patches"],
        indices=[0, 2],
        norm=norm,
        output_fmt="NLC",
        return_prefix_tokens=True,
        patch_coord=batch["patch_coord"],
        patch_valid=valid,
    )[1]
    assert len(found["image_intermediates"]) == len(expected) == 2
    for index, one in enumerate(expected):
        patches, prefix = one if isinstance(one, tuple) else (one, None)
        same(found["image_intermediates"][index][valid], patches[valid])
        assert not found["image_intermediates"][index][~valid].any()
        if prefix is None:
            assert "image_intermediates_prefix" not in found
        else:
            same(found["image_intermediates_prefix"][index], prefix)
    same(found["image_features"], ours(batch))
    assert torch.equal(found["image_patch_valid"], valid)
    assert torch.equal(found["image_patch_coord"], batch["patch_coord"])


@torch.inference_mode()
def test_pictures_of_one_grid_have_maps(pair: tuple[NaFlexTower, Any]) -> None:
    ours, _ = pair
    images = torch.randn(2, 3, 3 * PATCH, 4 * PATCH)
    batch = pad_patches([patchify(image, (PATCH, PATCH)) for image in images])
    found, expected = ours.forward_intermediates(batch), ours.forward_intermediates(images)
    assert found["image_intermediates"][0].shape == (2, 32, 3, 4)
    same(found["image_intermediates"], expected["image_intermediates"])
    same(ours.forward_tokens(batch), ours.forward_tokens(images))
    for wrong in (pad_patches(pictures(*GRIDS)), pad_patches(pictures((3, 4)), 13)):
        with pytest.raises(InputError, match="make no map .* ask for image_output_fmt='NLC'"):
            ours.forward_intermediates(wrong)
        with pytest.raises(InputError, match="tokens of padding would pass for those of pictures"):
            ours.forward_tokens(wrong)


# Padding


@pytest.fixture(scope="module", params=TOWERS)
def toy(request: pytest.FixtureRequest) -> NaFlexTower:
    return randomized(tower(TOWERS[request.param]))


@settings(max_examples=15, deadline=None)
@given(
    grids=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=4),
    more=st.integers(0, 9),
    noise=st.floats(-9, 9),
)
def test_padding_changes_no_feature(toy: NaFlexTower, grids: list[tuple[int, int]], more: int, noise: float) -> None:
    some = pictures(*grids)
    batch = pad_patches(some)
    longer = pad_patches(some, batch["patches"].shape[1] + more)
    longer["patches"][~longer["patch_valid"]] = noise
    with torch.inference_mode():
        features = toy(batch)
        same(toy(longer), features)
        for row, one in enumerate(some):
            same(toy(pad_patches([one]))[0], features[row])


@torch.inference_mode()
def test_an_image_and_its_patches_have_one_feature(toy: NaFlexTower) -> None:
    images = torch.randn(2, 3, 4 * PATCH, 4 * PATCH)
    same(toy(pad_patches([patchify(image, (PATCH, PATCH)) for image in images], 20)), toy(images))


def test_training_steps_through_patches_with_dropout_and_checkpointing() -> None:
    ours = tower({**TOWERS["mean"], "patch_dropout": 0.5, "drop_path": 0.1}).train()
    ours.set_grad_checkpointing()
    ours(pad_patches(pictures(*GRIDS))).sum().backward()
    assert all(parameter.grad is not None for parameter in ours.parameters())
    ours.lock(2)
    assert 0 < sum(parameter.requires_grad for parameter in ours.parameters()) < len(list(ours.parameters()))


# Models

NAFLEX = TINY | {
    "vision": {"tower": "naflex", "image_size": 32, "patch_size": PATCH, **TOWERS["mean"]},
    "preprocess": {"type": "naflex", "patch_size": PATCH, "image_seq_len": 12, "engine": "pil"},
}


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    return zoo.build(NAFLEX)


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height))


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Return pictures of different aspect ratios."""
    paths: list[str] = []
    for width, height in ((40, 30), (20, 90), (200, 31)):
        paths.append(str(tmp_path / f"{width}x{height}.png"))
        noise(width, height).save(paths[-1])
    return paths


@torch.inference_mode()
def test_pictures_of_any_shape_are_encoded_together(model: Any, files: list[str]) -> None:
    features = model.encode_image(files)
    assert features.shape == (3, TINY["embed_dim"])
    for row, path in enumerate(files):
        same(model.encode_image(path)[0], features[row])
    prepared = [model.preprocess(path) for path in files]
    assert len({len(one["patches"]) for one in prepared}) > 1
    same(model.encode_image(prepared), features)
    same(model.encode_image(NaFlexCollator(20)([(one, 0) for one in prepared])[0]), features)
    same(model(files, ["a", "b"])[0], torch.nn.functional.normalize(features, dim=-1))
    assert model.encode_image([]).shape == (0, TINY["embed_dim"])
    assert model.encode_image(torch.zeros(2, 3, 16, 40)).shape == (2, TINY["embed_dim"])
    found = model.forward_intermediates(files, image_output_fmt="NLC")
    assert found["image_intermediates"][0].shape[:2] == found["image_patch_valid"].shape


@torch.inference_mode()
def test_files_are_embedded_and_classified_in_batches(model: Any, files: list[str]) -> None:
    ((paths, found),) = embed_images(model, [*files, __file__], refused=lambda *_: None)
    assert paths == files
    same(torch.tensor(found), model.encode_image(files, normalize=True))
    assert [one.image for one in classify(model, files, ["cat", "dog"], refused=lambda *_: None)] == files
    with pytest.raises(ImageFileError, match=r"images\[1\]: .*test_naflex.py"):
        model.encode_image([files[0], __file__])


@torch.inference_mode()
def test_a_saved_model_comes_back_with_its_probe(model: Any, files: list[str], tmp_path: Path) -> None:
    folder = zoo.save(model, tmp_path / "model")
    again: Any = zoo.build(folder)
    assert all(one.ok for one in zoo.verify(folder))
    assert torch.equal(again.encode_image(files), model.encode_image(files))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other.encode_image(files), model.encode_image(files))
    half = copy.deepcopy(model).to(torch.bfloat16)
    assert half.encode_image(files).dtype == torch.bfloat16


def one_batch() -> dict[str, Any]:
    return pad_patches(pictures((2, 2), (1, 3)), 5)


def without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda batch: batch.pop(key)


def put(key: str, value: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    return lambda batch: batch.update({key: value(batch.get(key))})


def at(key: str, place: tuple[int, ...], value: Any) -> Callable[[dict[str, Any]], None]:
    def change(batch: dict[str, Any]) -> None:
        batch[key][place] = value

    return change


def swap(batch: dict[str, Any]) -> None:
    for key in ("patches", "patch_coord"):
        batch[key][0, [0, 1]] = batch[key][0, [1, 0]]


def one_row(padding: list[int]) -> Callable[[dict[str, Any]], None]:
    """Lay the four patches of the first picture in a row, and its padding where rows times columns are 2**64 + 4."""

    def change(batch: dict[str, Any]) -> None:
        batch["patch_coord"][0] = torch.tensor([[0, 0], [0, 1], [0, 2], [0, 3], padding])

    return change


BAD_BATCHES = {
    "missing": (without("patch_valid"), "a patch batch holds patches, patch_coord, patch_valid; this one lacks patch_valid"),
    "unknown": (put("attn_mask", lambda _: 1), "this one has the unknown key 'attn_mask'"),
    "no tensor": (put("patches", lambda x: x.tolist()), "patches: expected a tensor, found list"),
    "sparse": (put("patches", lambda x: x.to_sparse()), "found one of layout torch.sparse_coo; give its .to_dense()"),
    "nested": (
        put("patch_coord", lambda x: torch.nested.nested_tensor(list(x), layout=torch.jagged)),
        "expected a dense tensor, found a nested tensor; give torch.nested.to_padded_tensor",
    ),
    "width": (
        put("patches", lambda x: x[..., :-1]),
        "patches: expected [B, N, 192] in floating point, pixels of 8 x 8 with 3 channels, "
        "found torch.float32 [2, 5, 191]",
    ),
    "bytes": (put("patches", lambda x: x.byte()), "patches: expected [B, N, 192] in floating point"),
    "one picture": (put("patches", lambda x: x[0]), "patches: expected [B, N, 192] in floating point"),
    "coordinates": (put("patch_coord", lambda x: x[:, 1:]), "patch_coord: expected torch.int64 [2, 5, 2], found"),
    "fractions": (put("patch_coord", lambda x: x.float()), "patch_coord: expected torch.int64 [2, 5, 2], found"),
    "validity": (put("patch_valid", lambda x: x.float()), "patch_valid: expected torch.bool [2, 5], found torch.float32"),
    "length": (put("seq_len", lambda _: 7), "seq_len: expected 5, as there are patches, found 7"),
    "nothing valid": (at("patch_valid", (1,), False), "patch_valid: picture 1 has no valid patch"),
    "no patches": (
        lambda batch: batch.update({key: value[:, :0] for key, value in batch.items()}),
        "patch_valid: no picture has a valid patch",
    ),
    "order": (swap, "patch_coord: the 4 patches of picture 0 are no whole grid"),
    "hole": (at("patch_valid", (0, 1), False), "patch_coord: the 3 patches of picture 0 are no whole grid"),
    "cut off": (at("patch_valid", (0, 3), False), "patch_coord: the 3 patches of picture 0 are no whole grid"),
    "wild padding": (at("patch_coord", (1, 4), 10**9), "patch_coord: the 3 patches of picture 1 are no whole grid"),
    "negative": (at("patch_coord", (1, 4), -1), "patch_coord: the 3 patches of picture 1 are no whole grid"),
    "rows that wrap around": (one_row([2**62, 0]), "patch_coord: the 4 patches of picture 0 are no whole grid"),
    "columns that wrap around": (one_row([3, 2**62]), "patch_coord: the 4 patches of picture 0 are no whole grid"),
    "far away": (at("patch_coord", (0,), 2**62), "patch_coord: the 4 patches of picture 0 are no whole grid"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_BATCHES)
def test_a_patch_batch_that_does_not_fit_is_refused(case: str, model: Any) -> None:
    change, message = BAD_BATCHES[case]
    batch = one_batch()
    assert model.encode_image(batch).shape == (2, TINY["embed_dim"])
    change(batch)
    for call in (model.encode_image, model, model.forward_intermediates):
        with pytest.raises(InputError) as caught:
            call(batch)
        assert message in str(caught.value)


@pytest.mark.parametrize("patch", [(8, 8), (8, 12)])
def test_whole_grids_of_any_shape_are_taken_as_they_are(patch: tuple[int, int]) -> None:
    for rows, columns in itertools.product(range(1, 5), repeat=2):
        image = patchify(torch.randn(3, rows * patch[0], columns * patch[1]), patch)
        for length in (None, 17):
            batch = pad_patches([image, image], length)
            checked = check_patches(batch, patch, 3)
            assert all(torch.equal(checked[key], batch[key]) for key in batch)


def test_batches_without_pictures_or_without_values_are_taken() -> None:
    batch = one_batch()
    swap(batch)  # which only values tell
    for part in (
        {key: value[:0] for key, value in batch.items()},
        {key: value[:0, :0] for key, value in batch.items()},
        {key: value.to("meta") for key, value in batch.items()},
    ):
        checked = check_patches(part, (PATCH, PATCH), 3)
        assert {key: value.shape for key, value in checked.items()} == {key: value.shape for key, value in part.items()}


def test_a_tower_of_images_takes_no_patches() -> None:
    with pytest.raises(
        InputError, match=r"expected images \[B, 3, .* found a mapping: VisionTransformer takes no patc"
    ):
        zoo.build(TINY).encode_image(one_batch())


def test_prepared_pictures_of_another_preprocessing_are_refused(model: Any) -> None:
    with pytest.raises(InputError, match="expected tensors .* as this preprocessing gives, found dict"):
        zoo.build(TINY).encode_image(pictures((2, 2)))
    with pytest.raises(InputError, match=r"pictures\[0\]: expected patches, patch_coord, patch_valid, found pixels"):
        model.encode_image([{"pixels": torch.zeros(1)}])


def test_images_that_are_no_whole_patches_are_refused(model: Any) -> None:
    for height, width in ((32, 36), (0, 32)):
        with pytest.raises(InputError, match="expected images that are whole patches of 8 x 8 pixels, found"):
            model.encode_image(torch.zeros(1, 3, height, width))


def test_the_patches_of_preprocessing_and_tower_have_to_be_the_same() -> None:
    with pytest.raises(ConfigError) as caught:
        zoo.build(NAFLEX | {"preprocess": {"type": "naflex"}})
    assert "preprocess.patch_size: 'naflex' cuts pictures into patches of 16 x 16 pixels, but" in str(caught.value)
    assert "tower 'naflex' takes those of 8 x 8" in str(caught.value)
    with pytest.raises(ConfigError, match="preprocess.type: .* but tower 'vit' takes no patches"):
        zoo.build(TINY | {"preprocess": {"type": "naflex"}})


@torch.inference_mode()
def test_images_of_one_size_may_stand_before_a_tower_that_takes_patches(files: list[str]) -> None:
    assert zoo.build(NAFLEX | {"preprocess": {"type": "image"}}).encode_image(files).shape[0] == 3


# Configs

BAD_CONFIGS = {
    "typo": ({"kwargs": {"swiglu_mpl": True}}, "vision.kwargs.swiglu_mpl: NaFlexVit of timm {} takes no 'swiglu_mpl', did you mean 'swiglu_mlp'?"),
    "option of others": ({"kwargs": {"use_naflex": True}}, "vision.kwargs.use_naflex: NaFlexVit of timm {} takes no"),
    "no NaFlexViT": ({"name": "test_vit", "kwargs": {}, "image_size": 160}, "vision.name: backbone 'test_vit' takes no patches; use it with tower: timm"),
    "no backbone": ({"name": "naflexvit_bsae_patch16_gap"}, "vision.name: timm {} has no backbone 'naflexvit_bsae_patch16_gap', did you mean"),
    "no class token": ({"pool": "token"}, "vision.pool: "),
    "no map pool": ({"pool": "map"}, "vision.pool: timm {} cannot build 'naflexvit_base_patch16_gap': "),
    "width": ({"proj": "none"}, "vision.proj: with 'none' the feature of backbone 'naflexvit_base_patch16_gap' is 32 wide, but embed_dim is 24"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_what_a_backbone_does_not_take_is_refused_when_it_is_built(case: str) -> None:
    values, message = BAD_CONFIGS[case]
    with torch.device("meta"), pytest.raises(ConfigError) as caught:
        tower({"name": "naflexvit_base_patch16_gap", "kwargs": SMALL, **values}, embed_dim=24)
    assert str(caught.value).startswith(message.format(timm.__version__))


BAD_VALUES = {
    "patches": ({"image_size": [24, 20]}, "image_size: patches of 8 x 8 pixels do not divide images of 24 x 20"),
    "patch size twice": ({"kwargs": {"patch_size": 8}}, "kwargs.patch_size: is written as 'patch_size', beside kwargs"),
    "convolution": ({"kwargs": {"embed_proj_type": "conv"}}, "kwargs.embed_proj_type: cannot be set: patches are projected"),
    "layout": ({"kwargs": {"patchify_channels_last": False}}, "kwargs.patchify_channels_last: cannot be set: the channels"),
    "unread": ({"kwargs": {"input_norm_layer": "layernorm"}}, "kwargs.input_norm_layer: cannot be set: timm does not read it"),
    "pool": ({"pool": "abs_attn"}, "pool: 'abs_attn' is not known"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_VALUES)
def test_a_bad_config_is_refused_before_timm_is_asked(case: str) -> None:
    values, message = BAD_VALUES[case]
    with pytest.raises(ConfigError) as caught:
        NaFlexConfig.parse({"name": "naflexvit_base_patch16_gap", "image_size": 24, "patch_size": 8, **values})
    assert message in str(caught.value)


@pytest.mark.parametrize("option", ["input_norm_layer"])
def test_timm_does_not_read_an_option_that_is_refused_for_it(option: str) -> None:
    plain, other = (
        timm.create_model("naflexvit_base_patch16_gap", **SMALL, **more) for more in ({}, {option: "layernorm"})
    )
    assert {key: value.shape for key, value in plain.state_dict().items()} == {
        key: value.shape for key, value in other.state_dict().items()
    }


# Preprocessing

SIZES = st.tuples(st.integers(1, 3000), st.integers(1, 3000)).filter(lambda size: max(size) <= 200 * min(size))


@given(SIZES, st.integers(1, 32), st.integers(1, 32), st.integers(1, 1500))
def test_a_picture_gets_the_size_that_timm_gives_it(
    source: tuple[int, int], rows: int, columns: int, count: int
) -> None:
    found = fitted_size(source, (rows, columns), count)
    assert found == get_image_size_for_seq(source, (rows, columns), count)[1]
    assert (found[0] // rows) * (found[1] // columns) <= count


@pytest.mark.parametrize(
    ("source", "patch", "count"),
    [((5_998, 6_001), 16, 20), ((4_655, 4_657), 8, 30), ((3_808, 3_809), 8, 30), ((4_246, 4_247), 14, 2)],
)
def test_a_large_picture_that_is_nearly_square_gets_the_size_that_timm_gives_it(
    source: tuple[int, int], patch: int, count: int
) -> None:
    """Its height and width reach another number of patches within one step of the bisection."""
    assert fitted_size(source, (patch, patch), count) == get_image_size_for_seq(source, (patch, patch), count)[1]


SHAPES = [(40, 30), (64, 64), (7, 300), (333, 111), (1, 1)]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", SHAPES)
def test_evaluation_gives_timms_bits(size: tuple[int, int], interpolation: str) -> None:
    values = {
        "type": "naflex",
        "patch_size": [8, 12],
        "image_seq_len": 37,
        "engine": "pil",
        "interpolation": interpolation,
    }
    vision = NAFLEX["vision"] | {"patch_size": [8, 12], "image_size": [24, 24]}
    ours = zoo.preprocess(NAFLEX | {"vision": vision, "preprocess": values})
    theirs = create_transform(
        naflex=True,
        patchify=True,
        max_seq_len=37,
        patch_size=(8, 12),
        mean=ours.config.mean,
        std=ours.config.std,
        interpolation=interpolation,
    )
    found, expected = ours(noise(*size)), theirs(noise(*size))
    assert set(found) == set(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


class FromTorch:
    """Python's `random` as timm calls it, with the numbers of torch's generator."""

    uniform = staticmethod(lambda low, high: torch.empty(1).uniform_(low, high).item())
    randint = staticmethod(lambda low, high: int(torch.randint(low, high + 1, (1,))))
    choice = staticmethod(random.choice)


@pytest.mark.parametrize("ratio", [(3 / 4, 4 / 3), (1.5, 2.0)])
@pytest.mark.parametrize("size", SHAPES)
def test_training_crops_as_timm_does(
    size: tuple[int, int], ratio: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timm.data.naflex_transforms.random", FromTorch)
    train = {"scale": [0.3, 1.0], "ratio": list(ratio)}
    config = NAFLEX | {
        "preprocess": {"type": "naflex", "patch_size": PATCH, "image_seq_len": 20, "engine": "pil", "train": train}
    }
    ours: Any = zoo.preprocess(config, train=True)
    theirs = RandomResizedCropToSequence(PATCH, 20, scale=(0.3, 1.0), ratio=ratio, interpolation="bicubic")
    for seed in range(8):
        torch.manual_seed(seed)
        found = ours(noise(*size))
        torch.manual_seed(seed)
        cropped = theirs(noise(*size))
        whole = patchify(ours._engine.pixels(cropped), (PATCH, PATCH))  # a crop of timm's has its size already
        assert all(torch.equal(found[key], whole[key]) for key in whole)


def test_training_changes_colours_as_the_config_says() -> None:
    train = {"scale": [1.0, 1.0], "ratio": [1.0, 1.0], "grey_probability": 1.0}
    preprocess = {"type": "naflex", "patch_size": PATCH, "train": train, "mean": [0, 0, 0], "std": [1, 1, 1]}
    found = zoo.preprocess(NAFLEX | {"preprocess": preprocess}, train=True)(noise(64, 48))
    pixels = found["patches"].unflatten(-1, (-1, 3))
    assert torch.equal(pixels[..., 0], pixels[..., 1]) and torch.equal(pixels[..., 0], pixels[..., 2])


@pytest.mark.parametrize("engine", ["pil", "torch"])
def test_raw_pixels_have_the_patches_of_their_picture(engine: Any) -> None:
    picture = noise(50, 30)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    preprocess = NaFlexPreprocessor(NaFlexImageConfig(patch_size=(8, 8), engine=engine), image_size=(32, 32))
    expected = preprocess(picture)
    for patches in (preprocess(pixels), *preprocess.prepare(torch.stack([pixels, pixels]))):
        assert all(torch.equal(patches[key], expected[key]) for key in expected)


def test_a_picture_is_shown_whole_where_training_is_not_asked_for() -> None:
    config = NaFlexImageConfig(patch_size=(8, 8), engine="pil")
    plain = NaFlexPreprocessor(config, image_size=(32, 32))
    options: dict[str, Any] = {"mean": config.mean, "std": config.std, "interpolation": config.interpolation}
    transform: Any = create_transform(naflex=True, patchify=True, max_seq_len=16, patch_size=8, **options)
    for size in ((40, 30), (64, 64), (90, 50)):
        assert torch.equal(plain(noise(*size))["patches"], transform(noise(*size))["patches"])


def test_a_picture_has_one_patch_where_a_patch_is_larger_than_images() -> None:
    preprocess = NaFlexPreprocessor(NaFlexImageConfig(patch_size=(16, 16)), image_size=(8, 32))
    assert len(preprocess(noise(100, 60))["patches"]) == 1


def test_without_a_number_a_picture_has_as_many_patches_as_an_image() -> None:
    preprocess = zoo.preprocess(NAFLEX | {"preprocess": {"type": "naflex", "patch_size": PATCH}})
    assert len(preprocess(noise(100, 100))["patches"]) == 16


def test_a_batch_is_timms_without_needless_padding() -> None:
    preprocess = zoo.preprocess(NAFLEX)
    prepared = [preprocess(noise(*size)) for size in ((40, 30), (20, 90), (50, 50))]
    found, (expected, _) = preprocess.collate(prepared), NaFlexCollator(12)([(one, 0) for one in prepared])
    longest = max(len(one["patches"]) for one in prepared)
    assert all(torch.equal(value, expected[key][:, :longest]) for key, value in found.items())
    assert [found[key].shape for key in found] == [(3, longest, 192), (3, longest, 2), (3, longest)]
    assert [value.shape for value in preprocess.batch([]).values()] == [(0, 1, 192), (0, 1, 2), (0, 1)]
    assert torch.equal(pickle.loads(pickle.dumps(preprocess))(noise(40, 30))["patches"], prepared[0]["patches"])
