"""Libraries that work on any module of torch: adapters, quantization, offloading, functional calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zoo
from support.models.families import FAMILIES, model_of, pictures, words
from zoo_core.errors import InputError

NAME = "ViT CLIP"
CAPTIONS = ["a cat", "two dogs"]


def outputs(model: Any) -> tuple[Tensor, Tensor]:
    """Return the features that a model gives of fixed inputs."""
    with torch.no_grad():
        return model.encode_image(pictures(model)), model.encode_text(words(model))


def same(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Compare tensors, or structures of them."""
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


# Adapters


@pytest.mark.parametrize("family", [NAME, "CoCa"])
def test_low_rank_adapters_are_trained_merged_saved_and_loaded(family: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    model = model_of(family)
    before = outputs(model)
    config = peft.LoraConfig(r=2, target_modules=["in_proj", "c_fc", "out_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, config)
    optimizer = torch.optim.SGD([one for one in adapted.parameters() if one.requires_grad], lr=1e-3)
    model.train()
    (model.encode_image(pictures(model)).sum() + model.encode_text(words(model)).sum()).backward()
    optimizer.step()
    model.eval()
    trained = outputs(model)
    assert not torch.allclose(trained[0], before[0]) and not torch.allclose(trained[1], before[1])
    with pytest.raises(InputError, match=r"its layers were replaced \(adapters, quantization\); merge or undo that"):
        zoo.save(model, tmp_path / "adapted")
    merged = adapted.merge_and_unload()
    same(outputs(merged), trained)
    zoo.save(merged, tmp_path / "merged")
    same(outputs(zoo.load(tmp_path / "merged")), trained)


def test_a_model_built_by_hand_has_no_config_for_other_libraries_to_stumble_over() -> None:
    model = zoo.CLIP(16, FAMILIES[NAME].vision.config, FAMILIES[NAME].architecture["text"])
    assert not hasattr(model, "config") and model.text_contract is None
    built = model_of(NAME)
    assert built.config.to_dict() == built.config.data() and built.config.to_dict().get("tie_word_embeddings") is None
    with pytest.raises(InputError, match="has no config"):
        zoo.save(model, "anywhere")


# Quantization


class Coded(Tensor):
    """A tensor that holds something else than its values, as quantized ones do."""

    @staticmethod
    def __new__(cls, values: Tensor) -> Coded:
        """Wrap values."""
        return torch.Tensor._make_subclass(cls, values.detach())


def test_weights_that_are_no_plain_tensors_are_not_saved(tmp_path: Path) -> None:
    model = model_of(NAME)
    model.visual.transformer.resblocks[0].mlp.c_fc.weight = nn.Parameter(
        Coded(model.visual.transformer.resblocks[0].mlp.c_fc.weight), requires_grad=False
    )
    message = r"mlp\.c_fc\.weight is a Coded, no plain tensor: the model is quantized or sharded; save the model before"
    with pytest.raises(InputError, match=message):
        zoo.save(model, tmp_path / "quantized")
    from zoo.transfer.convert import export

    with pytest.raises(InputError, match=message):
        export(model, tmp_path / "quantized", to="open_clip")
    with pytest.raises(InputError, match="has no values here: the model is offloaded, or was built on the meta device"):
        zoo.save(zoo.build(FAMILIES[NAME].architecture, device="meta"), tmp_path / "meta")
    assert not list(tmp_path.iterdir())


def test_a_model_quantized_by_torchao_works_and_is_not_saved(tmp_path: Path) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    model = model_of(NAME)
    before = outputs(model)
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    for found, expected in zip(outputs(model), before, strict=True):
        assert torch.cosine_similarity(found, expected).min() > 0.99
    with pytest.raises(InputError, match="no plain tensor: the model is quantized"):
        zoo.save(model, tmp_path / "quantized")


# Functional calls; that of whole models is a behaviour of every family


def test_a_published_name_of_a_projection_is_set_as_any_parameter_is() -> None:
    model, other = model_of("CoCa"), FAMILIES["CoCa"].build(seed=1)
    for path in ("visual.transformer.resblocks.0.attn", "text_decoder.cross_attn.0.attn"):
        ours, theirs = model.get_submodule(path), other.get_submodule(path)
        for name in ("in_proj_weight", "in_proj_bias"):
            setattr(ours, name, nn.Parameter(getattr(theirs, name).detach().clone()))
            assert torch.equal(getattr(ours, name), getattr(theirs, name))
            with pytest.raises(TypeError, match=f"cannot assign 'Tensor' as parameter '{name}'"):
                setattr(ours, name, getattr(theirs, name).detach().clone())
            with pytest.raises(InputError, match=rf"{name}: expected \d+ rows, found shape \[1"):
                setattr(ours, name, nn.Parameter(getattr(theirs, name)[:1].detach()))
        assert all(isinstance(one, nn.Parameter) and one.is_leaf for one in ours.parameters())
    with pytest.raises(TypeError, match="cannot assign"):
        model_of(NAME).positional_embedding = torch.zeros(10, 24)


def test_a_compiled_functional_call_takes_published_names() -> None:
    model, other = model_of(NAME), FAMILIES[NAME].build(seed=1)
    given, state = (pictures(model), words(model)), other.state_dict()
    torch.compiler.reset()
    with torch.no_grad():
        call = torch.compile(lambda state, given: torch.func.functional_call(model, state, given), backend="eager")
        same(call(state, given), other(*given))
    torch.compiler.reset()


@pytest.mark.parametrize("scalar", [False, True])
def test_a_logit_scale_keeps_its_published_shape_whatever_a_functional_call_brings(scalar: bool) -> None:
    model = zoo.build(FAMILIES[NAME].architecture | {"nonscalar_logit_scale": not scalar})
    for shape in ((), (1,)):
        state = {"logit_scale": torch.zeros(shape)}
        assert torch.func.functional_call(model, state, (pictures(model),))[2].shape == (() if scalar else (1,))


# Offloading


def test_state_dicts_carry_the_names_of_modules_where_that_is_asked_for() -> None:
    for family in (NAME, "CoCa", "ResNet CLIP"):
        model = model_of(family)
        published = {key: value.shape for key, value in model.state_dict().items()}
        with model.own_names():
            own = model.state_dict()
        assert own.keys() == model.own_state_dict().keys() and own.keys() != published.keys()
        assert all(own[key].shape == value.shape for key, value in model.own_state_dict().items())
        assert {key: value.shape for key, value in model.state_dict().items()} == published
        other = FAMILIES[family].build(seed=1)
        other.load_state_dict(own)
        same(outputs(other), outputs(model), 0)


@pytest.mark.filterwarnings("ignore:The following device_map keys")  # parameters beside modules are keys too
@pytest.mark.parametrize("where", ["cpu", "disk", "dispatched", "loaded"])
def test_a_model_that_accelerate_offloads_gives_the_same_features(where: str, tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    from safetensors.torch import save_file

    model, cpu = model_of(NAME).requires_grad_(False), torch.device("cpu")
    expected, texts = outputs(model), model.encode_text(CAPTIONS)
    devices = {"visual": "disk", "text": "cpu", "logit_scale": "cpu"}
    with model.own_names():
        if where == "cpu":
            accelerate.cpu_offload(model, execution_device=cpu)
        elif where == "disk":
            accelerate.disk_offload(model, str(tmp_path), execution_device=cpu)
        elif where == "dispatched":
            accelerate.dispatch_model(model, devices, offload_dir=str(tmp_path))
        else:
            file = tmp_path / "own.safetensors"
            save_file(model.state_dict(), file, metadata={"format": "pt"})
            with accelerate.init_empty_weights():
                model = zoo.build(FAMILIES[NAME].architecture).requires_grad_(False)
    if where == "loaded":
        save_file(model_of(NAME).state_dict(), tmp_path / "published.safetensors", metadata={"format": "pt"})
        with model.own_names(), pytest.raises((RuntimeError, ValueError)):
            accelerate.load_checkpoint_in_model(
                model, str(tmp_path / "published.safetensors"), device_map={"": "cpu"}, strict=True
            )
        with model.own_names():
            accelerate.load_checkpoint_and_dispatch(
                model, str(file), device_map=devices, offload_folder=str(tmp_path / "offload"), strict=True
            )
    assert any(one.is_meta for one in model.parameters())
    same(outputs(model), expected)
    same(model.encode_text(CAPTIONS), texts)  # strings go where the hooks fetch them
    with pytest.raises(InputError, match="has no values here: the model is offloaded"):
        zoo.save(model, tmp_path / "saved")
