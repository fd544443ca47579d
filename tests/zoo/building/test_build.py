"""`zoo.build`, and the folders of `zoo.save` and `zoo.load`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from support.models.tiny_clip import ARCHITECTURE, assert_same_outputs, outputs, tiny
from support.peer import images, randomized
from zoo import CLIP, CustomTextCLIP
from zoo_core.errors import ConfigError, InputError, SaveError
from zoo_core.nn.transformer import QuickGELU


@pytest.fixture
def built() -> Any:
    return randomized(zoo.build(ARCHITECTURE))


def test_a_built_model_is_ready_for_inference(built: Any) -> None:
    assert not any(module.training for module in built.modules())
    assert type(built) is CLIP
    assert built.config == zoo.config(ARCHITECTURE)
    text = built.encode_text(["a dog", "a photo of a cat"])
    assert torch.equal(text, built.encode_text(built.tokenizer(["a dog", "a photo of a cat"])))


def test_the_model_key_picks_the_class() -> None:
    assert type(zoo.build(ARCHITECTURE | {"model": "custom-text-clip"})) is CustomTextCLIP


def test_model_options_of_an_architecture_reach_the_model() -> None:
    options = {"init_logit_scale": 1.5, "init_logit_bias": -2.0, "nonscalar_logit_scale": True}
    model = zoo.build(ARCHITECTURE | options)
    assert model.logit_scale.tolist() == [1.5]
    assert model.logit_bias is not None
    assert model.logit_bias.tolist() == [-2.0]


def test_overrides_change_the_architecture() -> None:
    model: Any = zoo.build(ARCHITECTURE, overrides=["vision.layers=1", "text.activation=quick_gelu"])
    assert len(model.visual.transformer.resblocks) == 1
    assert any(isinstance(module, QuickGELU) for module in model.text.modules())
    assert not any(isinstance(module, QuickGELU) for module in model.visual.modules())


def test_dtype_and_device_are_those_asked_for() -> None:
    assert {one.dtype for one in zoo.build(ARCHITECTURE, dtype=torch.bfloat16).parameters()} == {torch.bfloat16}
    assert {one.device.type for one in zoo.build(ARCHITECTURE, device="meta").parameters()} == {"meta"}


@pytest.mark.parametrize("tower", ["image", "text"])
def test_one_tower_alone_gives_the_features_of_the_whole(built: Any, tmp_path: Path, tower: str) -> None:
    folder = zoo.save(built, tmp_path / "model")
    model: Any = zoo.build(folder, towers=(tower,))
    whole = sum(one.numel() for one in built.parameters())
    assert sum(one.numel() for one in model.parameters()) < whole
    if tower == "image":
        assert model.text is None
        assert torch.equal(model.encode_image(images(model)), built.encode_image(images(built)))
        with pytest.raises(InputError, match="built without its text tower"):
            model.encode_text(["a dog"])
    else:
        assert model.visual is None
        assert torch.equal(model.encode_text(["a dog"]), built.encode_text(["a dog"]))
        with pytest.raises(InputError, match="built without its image tower"):
            model.encode_image(torch.zeros(1, 3, 32, 32))
    with pytest.raises(InputError, match="holds one tower only"):
        zoo.save(model, tmp_path / "part")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"towers": "text"}, "towers must hold 'image', 'text' or both, found 'text'"),
        ({"towers": ()}, "towers must hold"),
        ({"towers": ("audio",)}, "towers must hold"),
        ({"dtype": torch.int8}, "dtype must be a floating-point torch.dtype"),
        ({"dtype": "bf16"}, "dtype must be a floating-point torch.dtype"),
        ({"device": "gpu"}, "device 'gpu' is none"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used here: "),
        ({"device": "xpu"}, "allowed: cpu"),
        ({"overrides": ["vision.layer=2"]}, "did you mean 'layers'"),
        ({"overrides": "vision.layers=2"}, "write overrides=['vision.layers=2']"),
    ],
    ids=str,
)
def test_a_wrong_argument_of_build_is_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises((InputError, ConfigError)) as caught:
        zoo.build(ARCHITECTURE, **options)
    assert message in str(caught.value)


# Folders


@pytest.mark.parametrize("kind", ["clip", "custom-text-clip"])
def test_a_saved_model_comes_back_bit_for_bit(tmp_path: Path, kind: str) -> None:
    model = randomized(zoo.build(ARCHITECTURE | {"model": kind, "init_logit_bias": -1.0}))
    loaded = zoo.load(zoo.save(model, tmp_path / "model"))
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    assert_same_outputs(model, loaded)


def test_a_saved_model_keeps_its_precision_unless_another_is_asked_for(built: Any, tmp_path: Path) -> None:
    folder = zoo.save(built.bfloat16(), tmp_path / "model")
    assert {one.dtype for one in zoo.load(folder).parameters()} == {torch.bfloat16}
    assert {one.dtype for one in zoo.load(folder, dtype=torch.float32).parameters()} == {torch.float32}


def test_a_folder_of_something_else_is_never_replaced(built: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(SaveError, match="exists and is no saved model"):
        zoo.save(built, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_save_that_fails_leaves_the_old_model(built: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch

    folder = zoo.save(built, tmp_path / "model")
    before = outputs(built)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(SaveError, match="No space left on device"):
        zoo.save(randomized(built, seed=1), folder)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    for one, other in zip(outputs(zoo.load(folder)), before, strict=True):
        assert torch.equal(one, other)


def test_a_model_built_by_hand_cannot_be_saved_without_its_config(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no config"):
        zoo.save(tiny(), tmp_path / "model")
    assert not list(tmp_path.iterdir())
