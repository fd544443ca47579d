"""Numbers in a file that would make a model give NaN, or raise at first use, are told when it is loaded."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import zoo
from support.models.families import FAMILIES, pictures, words
from zoo.checkpoints.containers import open_container
from zoo_core.errors import CheckpointError, InputError, ZooWarning

Entries = dict[str, Tensor]
CLIP, RESNET, SIGLIP = "ViT CLIP", "ResNet CLIP", "CustomTextCLIP"
HALF, BRAIN = torch.float16, torch.bfloat16


def written(path: Path, family: str, change: Callable[[Entries], Any]) -> Path:
    entries = {key: value.clone() for key, value in FAMILIES[family].build().state_dict().items()}
    torch.save(change(entries) or entries, path)
    return path


def to(key: str, change: Callable[[Tensor], Tensor]) -> Callable[[Entries], Entries]:
    """Change every entry whose name ends so."""
    return lambda entries: {name: change(one) if name.endswith(key) else one for name, one in entries.items()}


def filled(key: str, value: float) -> Callable[[Entries], Entries]:
    return to(key, lambda one: torch.full_like(one, value))


REFUSED: list[tuple[str, Callable[[Entries], Entries], dict[str, Any], str]] = [
    (CLIP, filled("logit_scale", 100), {}, r"logit_scale is 100, and exp\(100\) is infinite; was its logarithm not taken"),
    (CLIP, filled("logit_scale", 12), {"dtype": HALF}, r"logit_scale is 12, and exp\(12\) is infinite"),
    (CLIP, to("logit_scale", lambda one: one.fill_(12).half()), {}, r"logit_scale is 12, and exp\(12\) is infinite"),
    (RESNET, filled("bn2.running_var", -1), {}, r"bn2.running_var' holds negative variances; the file is damaged"),
    (CLIP, filled("visual.proj", 1e5), {"dtype": HALF}, "512 of 512 values of 'visual.proj' are beyond 65504"),
    (CLIP, filled("visual.proj", 1e30), {}, r"512 of 512 values of 'visual.proj' that no model has, of up to 1e\+30"),
    (CLIP, to("visual.proj", lambda one: one.double() * 1e300), {}, "values of 'visual.proj' that no model has"),
    (CLIP, to("visual.proj", lambda one: (one * 0 + 1e30).bfloat16()), {}, "values of 'visual.proj' that no model has"),
    (CLIP, filled("ln_final.bias", math.nan), {}, "holds NaN or infinity: 24 of 24 values of 'ln_final.bias'"),
    (CLIP, filled("logit_scale", math.inf), {}, "holds NaN or infinity: 1 of 1 values of 'logit_scale'"),
    (CLIP, to("visual.proj", Tensor.long), {}, r"visual.proj \(int64, expected float32\); are the weights quantized"),
    (CLIP, to("visual.proj", Tensor.char), {}, r"visual.proj \(int8, expected float32\)"),
    (CLIP, to("visual.proj", Tensor.bool), {}, r"visual.proj \(bool, expected float32\)"),
    (CLIP, to("visual.proj", lambda one: one.to(torch.complex64)), {}, r"visual.proj \(complex64, expected float32\)"),
    (CLIP, to("logit_scale", Tensor.long), {}, r"logit_scale \(int64, expected float32\)"),
    (CLIP, to("visual.proj", lambda one: one.to(torch.float8_e4m3fn)), {}, r"visual.proj \(float8_e4m3fn, expected"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*logit_scale is")
@pytest.mark.parametrize(("family", "change", "options", "message"), REFUSED, ids=[one[-1][:40] for one in REFUSED])
def test_values_that_no_model_can_compute_with_are_refused(
    family: str, change: Callable[[Entries], Entries], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "x.pt", family, change)
    with pytest.raises(CheckpointError, match=message) as caught:
        zoo.build(FAMILIES[family].architecture, pretrained=path, **options)
    assert str(path) in str(caught.value)
    model = zoo.build(FAMILIES[family].architecture, dtype=options.get("dtype"))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    if "is 12" not in message or options:  # a model in float32 takes a scale of half precision in float32
        with pytest.raises(CheckpointError, match=message):
            zoo.load_weights(model, path)
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        (
            CLIP,
            filled("logit_scale", 1 / 0.07),
            r"logit_scale is 14\.2857, a factor of 1\.6e\+06, where that of models is up to",
        ),
        (CLIP, filled("logit_scale", -50), r"logit_scale is -50, a factor of 1\.93e-22"),
        (SIGLIP, filled("logit_bias", -1e6), r"logit_bias is -1e\+06, .*: every probability is 0 or 1"),
    ],
)
def test_values_that_are_hardly_meant_are_told(
    family: str, change: Callable[[Entries], Entries], message: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "x.pt", family, change)
    with pytest.warns(ZooWarning, match=message):
        model = zoo.build(FAMILIES[family].architecture, pretrained=path)
    assert any("logit_" in note for note in model.notes)


def test_a_scale_without_its_logarithm_is_mended_as_the_error_says(tmp_path: Path) -> None:
    def mended(entries: Entries) -> Entries:
        return entries | {"logit_scale": torch.tensor(math.log(100))}

    model = zoo.build(FAMILIES[CLIP].architecture, pretrained=written(tmp_path / "x.pt", CLIP, mended))
    assert model.probabilities(pictures(model), words(model)).isfinite().all()


ACCEPTED: list[tuple[str, Callable[[Entries], Entries], dict[str, Any]]] = [
    (CLIP, filled("logit_scale", math.log(100)), {}),
    (CLIP, filled("logit_scale", 4.7751), {}),
    (CLIP, filled("logit_scale", 0), {"dtype": HALF}),
    (RESNET, filled("running_var", 0), {}),
    (RESNET, to("num_batches_tracked", Tensor.half), {}),
    (RESNET, to("num_batches_tracked", Tensor.int), {}),
    (CLIP, filled("visual.proj", 65504), {"dtype": BRAIN}),
    (CLIP, to("", Tensor.zero_), {}),
]


@pytest.mark.parametrize(("family", "change", "options"), ACCEPTED)
def test_values_that_trained_models_have_are_no_matter(
    family: str, change: Callable[[Entries], Entries], options: dict[str, Any], tmp_path: Path
) -> None:
    path = written(tmp_path / "x.pt", family, change)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ZooWarning)
        model = zoo.build(FAMILIES[family].architecture, pretrained=path, **options)
    with torch.inference_mode():
        assert model.probabilities(pictures(model), words(model)).isfinite().all()


# Dtypes


MIXES: dict[str, Callable[[str, Tensor], bool]] = {
    "biases": lambda key, _: key.endswith("bias"),
    "vectors": lambda _, one: one.ndim < 2,
    "embeddings": lambda key, _: "embed" in key,
    "projections": lambda key, _: key.endswith("proj"),
    "one tower": lambda key, _: not key.startswith("visual."),
}


@pytest.mark.parametrize("half", [HALF, BRAIN], ids=str)
@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("family", [CLIP, RESNET, "HF text"])
def test_weights_of_dtypes_that_cannot_be_computed_with_together_are_taken_in_one(
    family: str, mix: str, half: torch.dtype, tmp_path: Path
) -> None:
    def mixed(entries: Entries) -> Entries:
        return {
            key: one if MIXES[mix](key, one) or not one.is_floating_point() else one.to(half)
            for key, one in entries.items()
        }

    path = written(tmp_path / "x.pt", family, mixed)
    if not any(value.is_float and value.dtype == "float32" for value in open_container(path).entries.values()):
        pytest.skip("it has none of these")
    model = zoo.build(FAMILIES[family].architecture, pretrained=path)
    assert "taken as float32: the weights are of several dtypes" in model.notes
    expected = zoo.build(FAMILIES[family].architecture, pretrained=path, dtype=torch.float32)
    with torch.inference_mode():
        assert torch.equal(
            model.similarity(pictures(model), words(model)), expected.similarity(pictures(model), words(model))
        )


@pytest.mark.parametrize("half", [HALF, BRAIN], ids=str)
@pytest.mark.parametrize("family", [CLIP, RESNET])
def test_norms_and_the_logit_scale_stay_in_float32_beside_matrices_in_half(
    family: str, half: torch.dtype, tmp_path: Path
) -> None:
    from zoo_core.nn.precision import cast_matrices

    whole = FAMILIES[family].build()
    cast_matrices(whole, half)
    torch.save(whole.state_dict(), tmp_path / "x.pt")
    model = zoo.build(FAMILIES[family].architecture, pretrained=tmp_path / "x.pt")
    assert {key: one.dtype for key, one in model.state_dict().items()} == {
        key: one.dtype for key, one in whole.state_dict().items()
    }
    with torch.inference_mode():
        assert model.probabilities(pictures(model).to(half), words(model)).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.complex64, "float32"])
def test_a_dtype_that_nothing_computes_in_is_refused(dtype: Any) -> None:
    with pytest.raises(InputError, match="dtype must be a floating-point torch.dtype of 16 bits or more"):
        zoo.build(FAMILIES[CLIP].architecture, dtype=dtype)


# What bytes say


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_found(dtype: torch.dtype, value: float, tmp_path: Path) -> None:
    largest = min(2.0**59, torch.finfo(dtype).max)
    weights = torch.full((1000,), largest, dtype=dtype)  # whose norm exceeds the limit, though no value does
    fine = weights.clone()
    weights[77] = value
    for path, save in ((tmp_path / "x.safetensors", save_file), (tmp_path / "x.pt", torch.save)):
        save({"fine": fine, "a": weights}, path)
        source = open_container(path)
        source.check(["fine"])
        with pytest.raises(CheckpointError, match="holds NaN or infinity: 1 of 1000 values of 'a'"):
            source.check(["fine", "a"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_a_value_whose_exponent_flipped_is_found_without_a_checksum(dtype: torch.dtype, tmp_path: Path) -> None:
    weights = torch.full((1000,), 0.01, dtype=dtype)
    weights.view(getattr(torch, f"int{8 * dtype.itemsize}"))[7] ^= 1 << (8 * dtype.itemsize - 2)
    save_file({"a": weights}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="holds 1 of 1000 values of 'a' that no model has, of up to .*e[+]"):
        open_container(tmp_path / "x.safetensors").check(["a"])
