"""What a GPU has to do like a CPU: features, gradients, losses, captions, folders, profiles. Skipped where there is none.

The CPU is the reference, in float32 with TF32 off, so that a GPU's numbers differ by rounding alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import zoo
from support.loss_references import OPTIONS, arguments, drawn, gradients, reference
from support.models.behaviours import loss_of, outputs
from support.models.families import FAMILIES, model_of, pictures, words
from zoo.inference.profiling.measure import profile_model
from zoo_coca.generation import Vocabulary
from zoo_core.errors import InputError
from zoo_images.config import ImageConfig, NaFlexImageConfig
from zoo_images.naflex import NaFlexPreprocessor
from zoo_images.preprocessor import ImagePreprocessor

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CUDA = torch.device("cuda")
VOCABULARY = Vocabulary(sot_id=598, eot_id=599, pad_id=0)
COARSE = {torch.bfloat16: 0.99, torch.float16: 0.999}
"""Least cosine of features of each dtype with those of float32."""


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    """Compute float32 products in float32."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn


def run(model: Any) -> dict[str, Any]:
    """Return what `forward` gives for the inputs that every device gets, on the CPU."""
    model.output_dict = True
    device = next(model.parameters()).device
    with torch.no_grad():
        found = model(pictures(model).to(device), words(model).to(device))
    assert all(one.device == device for one in found.values() if isinstance(one, Tensor))
    return {key: one.cpu() if isinstance(one, Tensor) else one for key, one in found.items()}


def near(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_are_those_of_the_cpu(family: str) -> None:
    model = model_of(family)
    near(run(copy.deepcopy(model).to(CUDA)), outputs(model), 1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_intermediates_are_those_of_the_cpu(family: str) -> None:
    model = model_of(family)
    twin = copy.deepcopy(model).to(CUDA)
    with torch.no_grad():
        expected = model.forward_intermediates(pictures(model), words(model))
        found = twin.forward_intermediates(pictures(model).to(CUDA), words(model).to(CUDA))
    for side in ("image_intermediates", "text_intermediates"):
        near([one.cpu() for one in found[side]], list(expected[side]), 1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_the_cpu(family: str) -> None:
    found: list[dict[str, Tensor]] = []
    for device in ("cpu", "cuda"):
        model = model_of(family).to(device)  # in evaluation mode: dropout draws other numbers on each device
        model.output_dict = True
        result = model(pictures(model).to(device), words(model).to(device))
        loss_of({key: one.cpu() for key, one in result.items() if isinstance(one, Tensor)}).backward()
        found.append({name: one.grad.cpu() for name, one in model.named_parameters() if one.grad is not None})
    expected, ours = found
    assert ours.keys() == expected.keys()
    for name, one in ours.items():
        scale = max(1.0, float(expected[name].abs().max()))
        torch.testing.assert_close(one / scale, expected[name] / scale, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", COARSE, ids=str)
@pytest.mark.parametrize("way", ["cast", "autocast"])
@pytest.mark.parametrize("family", FAMILIES)
def test_coarser_numbers_stay_near(family: str, way: str, dtype: torch.dtype) -> None:
    model = model_of(family)
    expected = outputs(model)
    if way == "cast":
        found = run(model.to(CUDA, dtype))
    else:
        with torch.autocast("cuda", dtype):
            found = run(model.to(CUDA))
    for side in ("image_features", "text_features"):
        assert F.cosine_similarity(found[side].float(), expected[side]).min() > COARSE[dtype]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_scaled_step_in_mixed_precision_is_finite(family: str) -> None:
    model = model_of(family).to(CUDA).train()
    model.output_dict = True
    model.set_grad_checkpointing()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cuda", init_scale=2**6)
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    with torch.autocast("cuda", torch.float16):
        found = model(pictures(model).to(CUDA), words(model).to(CUDA))
        value = zoo.loss("contrastive")(found["image_features"], found["text_features"], found["logit_scale"])
    scaler.scale(value).backward()
    scaler.step(optimizer)
    scaler.update()
    assert value.isfinite()
    assert all(one.isfinite().all() for one in model.parameters())
    assert any(not torch.equal(one, before[name]) for name, one in model.named_parameters())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler speaks of itself, and of TF32
@pytest.mark.parametrize("family", ["ViT CLIP", "modern text", "HF text", "timm NaFlex"])
def test_compiled_outputs_are_those_of_the_cpu(family: str) -> None:
    model = model_of(family)
    expected = outputs(model)
    twin = copy.deepcopy(model).to(CUDA)
    torch.compiler.reset()
    with torch.inference_mode():
        image, text = torch.compile(twin.encode_image), torch.compile(twin.encode_text)
        near(image(pictures(model).to(CUDA), normalize=True).cpu(), expected["image_features"], 1e-4)
        near(text(words(model).to(CUDA), normalize=True).cpu(), expected["text_features"], 1e-4)


@pytest.mark.parametrize("family", ["ViT CLIP", "CustomTextCLIP", "ResNet CLIP", "CLIPA"])
def test_a_captured_graph_encodes_other_inputs(family: str) -> None:
    model = model_of(family)
    twin = copy.deepcopy(model).to(CUDA)
    image, text = pictures(model).to(CUDA), words(model).to(CUDA)
    stream = torch.cuda.Stream()
    with torch.inference_mode():
        with torch.cuda.stream(stream):
            for _ in range(2):
                twin.encode_image(image), twin.encode_text(text)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            features = twin.encode_image(image), twin.encode_text(text)
        image.copy_(pictures(model, seed=1)), text.copy_(words(model, seed=1))
        graph.replay()
        expected = model.encode_image(image.cpu()), model.encode_text(text.cpu())
        near([one.cpu() for one in features], list(expected), 1e-4)


@pytest.mark.parametrize("ids", [False, True], ids=["pairs", "ids"])
@pytest.mark.parametrize("chunk_size", [None, 3])
@pytest.mark.parametrize("name", OPTIONS)
def test_losses_and_their_gradients_are_exact(name: str, chunk_size: int | None, ids: bool) -> None:
    given = arguments(name, drawn(8), ids=ids)
    expected = reference(name, given)
    moved = {key: one.detach().to(CUDA).requires_grad_(one.requires_grad) for key, one in given.items()}
    parts = zoo.loss(name, **OPTIONS[name], chunk_size=chunk_size)(**moved, output_dict=True)
    found = torch.stack(list(parts.values())).sum()
    assert found.device.type == "cuda"
    near(found.cpu(), expected, 1e-10)
    ours, theirs = gradients(found, moved), gradients(expected, given)
    near({key: one.cpu() for key, one in ours.items()}, theirs, 1e-10)


# --- one model, from files and strings to scores ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tiny trained-looking model of random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("cuda") / "model"
    zoo.save(zoo.build("digits-tiny"), path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return paths of pictures of several sizes."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        Image.fromarray(rng.integers(0, 256, (40 + 9 * number, 50, 3), dtype=np.uint8)).save(path)
    return [str(path) for path in paths]


CAPTIONS = ["a seven", "the digit two, written by hand", "", "a seven"]


def test_weights_go_straight_to_the_device_and_are_the_same(folder: Path) -> None:
    expected = zoo.load(folder)
    model = zoo.load(folder, device="cuda", verify=True, probe=True)
    assert {one.device.type for one in [*model.parameters(), *model.buffers()]} == {"cuda"}
    found = {key: one.cpu() for key, one in model.state_dict().items()}
    torch.testing.assert_close(found, dict(expected.state_dict()), rtol=0, atol=0)


def test_a_model_saved_from_the_device_is_the_same_folder(folder: Path, tmp_path: Path) -> None:
    zoo.save(zoo.load(folder, device="cuda"), tmp_path / "again")
    assert (tmp_path / "again/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    zoo.load(tmp_path / "again", probe=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_probe_holds_in_each_dtype(folder: Path, dtype: torch.dtype) -> None:
    model = zoo.load(folder, device="cuda", dtype=dtype, probe=True)
    assert {one.dtype for one in model.parameters()} == {dtype}


def test_strings_and_files_are_encoded_on_the_device(folder: Path, files: list[str]) -> None:
    expected, model = zoo.load(folder), zoo.load(folder, device="cuda")
    with torch.inference_mode():
        for found, reference_ in (
            (model.encode_text(CAPTIONS, normalize=True), expected.encode_text(CAPTIONS, normalize=True)),
            (model.encode_image(files, normalize=True), expected.encode_image(files, normalize=True)),
        ):
            assert found.device.type == "cuda"
            near(found.cpu(), reference_, 1e-4)


# --- raw pixels ---

SIZES = [(100, 80), (64, 48), (50, 200), (30, 20), (1, 150), (700, 900)]
"""Height and width: shrinking, fitting, growing in one side or both, a single row, and much."""


def raw(height: int, width: int, count: int = 3) -> Tensor:
    """Return uint8 pixels `[count, 3, H, W]` with smooth parts and noise."""
    generator = torch.Generator().manual_seed(height)
    coarse = torch.rand(count, 3, 7, 9, generator=generator)
    smooth = F.interpolate(coarse, size=(height, width), mode="bilinear") * 230
    return (smooth + 25 * torch.rand(count, 3, height, width, generator=generator)).to(torch.uint8)


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("engine", ["torch", "pil"])
def test_raw_pixels_become_what_they_become_on_the_cpu(engine: str, interpolation: str, mode: str) -> None:
    spec = {"resize_mode": mode, "interpolation": interpolation, "engine": engine, "mean": [0, 0, 0], "std": [1, 1, 1]}
    made = ImagePreprocessor(ImageConfig.parse(spec), image_size=(64, 48))
    for size in SIZES:
        found, expected = made.batch(raw(*size).to(CUDA)), made.batch(raw(*size))
        assert found.device.type == "cuda"
        assert 255 * (found.cpu() - expected).abs().max() < (1.01 if engine == "torch" else 1e-3), size


@pytest.mark.parametrize("side", [4032, 4095, 4096, 4160, 7900])
def test_pixels_that_shrink_a_lot_are_resampled_somewhere(side: int) -> None:
    made = ImagePreprocessor(ImageConfig.parse({"mean": [0, 0, 0], "std": [1, 1, 1]}), image_size=(64, 64))
    given = raw(side, side, 1)
    assert 255 * (made.batch(given.to(CUDA)).cpu() - made.batch(given)).abs().max() < 1.01


def test_training_draws_and_patches_stay_on_the_device() -> None:
    spec = {"train": {"color_jitter": [0.3, 0.3, 0.3, 0.1], "color_jitter_probability": 0.5}}
    made = ImagePreprocessor(ImageConfig.parse(spec), image_size=(32, 32), train=True)
    assert made.batch(raw(60, 80).to(CUDA)).device.type == "cuda"
    model = model_of("timm NaFlex")
    config = NaFlexImageConfig.parse({"patch_size": [8, 8]})
    patches = NaFlexPreprocessor(config, image_size=model.visual.image_size).batch([raw(60, 80, 1)[0].to(CUDA)])
    assert {one.device.type for one in patches.values()} == {"cuda"}
    with torch.no_grad():
        found = model.to(CUDA).encode_image(patches)
        near(found.cpu(), model.cpu().encode_image({key: one.cpu() for key, one in patches.items()}), 1e-4)


@pytest.mark.parametrize("optimize", [None, "inference"])
def test_raw_pixels_are_encoded_on_the_device(folder: Path, optimize: Any) -> None:
    expected, model = zoo.load(folder), zoo.build(folder, device="cuda", optimize=optimize)
    given = raw(90, 70)
    with torch.inference_mode():
        found = model.encode_image(given.to(CUDA), normalize=True)
        assert found.device.type == "cuda"
        reference_ = expected.encode_image(given, normalize=True)
        assert F.cosine_similarity(found.cpu(), reference_).min() > 0.9999
        with torch.autocast("cuda", torch.bfloat16):
            coarse = model.encode_image(given.to(CUDA), normalize=True).float().cpu()
        assert F.cosine_similarity(coarse, reference_).min() > 0.99


def test_trimmed_rows_are_those_of_full_length(folder: Path) -> None:
    model = zoo.load(folder, device="cuda")
    ids = model.tokenizer(CAPTIONS).to(CUDA)
    with torch.inference_mode():
        whole = model.text(ids)
        near(model.encode_text(ids), whole, 1e-5)
        near(model.encode_text(CAPTIONS), whole, 1e-5)


def test_probabilities_and_similarities_agree(folder: Path, files: list[str]) -> None:
    expected, model = zoo.load(folder), zoo.load(folder, device="cuda")
    with torch.inference_mode():
        near(model.similarity(files, CAPTIONS).cpu(), expected.similarity(files, CAPTIONS), 1e-4)
        near(model.probabilities(files, CAPTIONS).cpu(), expected.probabilities(files, CAPTIONS), 1e-4)


def test_a_zero_shot_classifier_agrees(folder: Path, files: list[str]) -> None:
    labels, templates = ["one", "two", "three"], ["a photo of a {}.", "the digit {}"]
    found, expected = (
        zoo.ZeroShotClassifier(zoo.load(folder, device=device), labels, templates).top(files, 2)
        for device in ("cuda", "cpu")
    )
    assert [[label for label, _ in row] for row in found] == [[label for label, _ in row] for row in expected]
    for row, other in zip(found, expected, strict=True):
        assert [score for _, score in row] == pytest.approx([score for _, score in other], abs=1e-4)


def test_retrieval_metrics_agree() -> None:
    generator = torch.Generator().manual_seed(0)
    image, text = (F.normalize(torch.randn(50, 8, generator=generator), dim=-1) for _ in range(2))
    assert zoo.retrieval_metrics(image.to(CUDA), text.to(CUDA)) == zoo.retrieval_metrics(image, text)


def test_the_forms_for_inference_give_the_same_features(folder: Path, files: list[str]) -> None:
    expected, model = zoo.load(folder, device="cuda"), zoo.build(folder, device="cuda", optimize="inference")
    with torch.inference_mode():
        near(model.encode_image(files), expected.encode_image(files), 1e-3)
        near(model.encode_text(CAPTIONS), expected.encode_text(CAPTIONS), 1e-3)


@pytest.mark.parametrize("strategy", ["greedy", "beam", "top_p"])
def test_captions_are_written_on_the_device(strategy: str) -> None:
    model = model_of("CoCa")
    twin, image = copy.deepcopy(model).to(CUDA), pictures(model, 2)
    options: dict[str, Any] = {"strategy": strategy, "max_length": 8, "vocabulary": VOCABULARY}
    found = twin.generate(image.to(CUDA), **options)
    assert found.device.type == "cuda"
    if strategy != "top_p":
        assert torch.equal(found.cpu(), model.generate(image, **options))
        return
    drawn = [
        twin.generate(image.to(CUDA), generator=torch.Generator(CUDA).manual_seed(seed), **options) for seed in (3, 3)
    ]
    assert torch.equal(*drawn)


def test_patch_dropout_draws_on_the_device() -> None:
    config = FAMILIES["ViT CLIP"].architecture
    model = zoo.build(config | {"vision": config["vision"] | {"patch_dropout": 0.5}}, device="cuda").train()
    image = pictures(model).to(CUDA)
    torch.manual_seed(1)
    one = model.encode_image(image)
    torch.manual_seed(1)
    assert torch.equal(model.encode_image(image), one)
    assert not torch.equal(model.encode_image(image), one)


def test_a_profile_measures_the_device(folder: Path) -> None:
    model = zoo.load(folder, device="cuda")
    sizes = {"image_size": model.visual.image_size, "context_length": model.text.context_length}
    found = profile_model(model, **sizes, vocab_size=model.text.vocab_size, batch_size=4, steps=3, device="cuda")
    assert found.hardware.gpu == torch.cuda.get_device_name()
    assert all(tower.latency > 0 and tower.peak_activation_bytes > 0 for tower in found.towers.values())


def test_a_device_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=f"cuda:{torch.cuda.device_count()}"):
        zoo.load(folder, device=f"cuda:{torch.cuda.device_count()}")
