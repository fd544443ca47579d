"""Weights as their authors published them, big_vision, OpenAI, Apple and open_clip: read here as the peer reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import zoo
from support import peer
from support.checkpoints.foreign import assert_close, equal, tensors_of
from support.checkpoints.published_files import (
    big_vision_file,
    mobileclip_file,
)
from zoo.catalog.state_dict_shapes import shapes_of
from zoo.checkpoints.open import open_checkpoint
from zoo_core.errors import CheckpointError

Json = dict[str, Any]


# big_vision


@pytest.mark.parametrize("root", ["params/", ""])
@pytest.mark.parametrize("stacked", [False, True], ids=["one by one", "stacked"])
def test_weights_of_big_vision_become_what_the_peer_makes_of_them(stacked: bool, root: str, tmp_path: Path) -> None:
    file, expected = big_vision_file(tmp_path, stacked, root)
    assert equal(tensors_of(open_checkpoint(file)), expected)


# OpenAI


@pytest.mark.parametrize("vision", [{}, {"layers": [1, 1, 1, 1], "width": 64, "image_size": 64, "patch_size": None}])
def test_openais_state_dict_loads_as_the_peer_loads_it(vision: Json, tmp_path: Path) -> None:
    import open_clip
    from open_clip.openai import build_model_from_openai_state_dict

    arguments = peer.tiny_arguments(quick_gelu=True, embed_dim=32)
    arguments["vision_cfg"] |= {"width": 64, "layers": 2, "head_width": 64} | vision
    arguments["text_cfg"] |= {"width": 64, "heads": 1, "layers": 2}
    state = peer.randomized(open_clip.CLIP(**arguments)).half().state_dict()
    numbers = {"input_resolution": vision.get("image_size", 32), "context_length": 12, "vocab_size": peer.VOCABULARY}
    published = state | {key: torch.tensor(value) for key, value in numbers.items()}
    torch.save(published, tmp_path / "openai.pt")
    theirs: Any = build_model_from_openai_state_dict(dict(published), cast_dtype=torch.float32).float().eval()
    assert equal(tensors_of(open_checkpoint(tmp_path / "openai.pt")), state)
    if vision:
        given = {key: value for key, value in vision.items() if value}
        arguments["vision_cfg"] = {"tower": "modified-resnet", "head_width": 64} | given
    ours = zoo.load_weights(zoo.CLIP(**arguments).eval(), tmp_path / "openai.pt")
    pixels, ids = peer.images(ours), peer.captions(ours)
    with torch.no_grad():
        assert_close(ours.encode_image(pixels), theirs.encode_image(pixels))
        assert_close(ours.encode_text(ids), theirs.encode_text(ids))


class Archive(torch.nn.Module):
    """What OpenAI's archives are, as far as their names go: a program, weights in half precision and three numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.positional_embedding = torch.nn.Parameter(torch.randn(12, 24).half())
        for name, value in {"input_resolution": 32, "context_length": 12, "vocab_size": 49_408}.items():
            self.register_buffer(name, torch.tensor(value))

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*jit.*:FutureWarning")
def test_openais_archives_are_read_without_running_their_program(tmp_path: Path) -> None:
    archive = Archive()
    torch.jit.script(archive).save(str(tmp_path / "ViT-tiny.pt"))
    source = open_checkpoint(tmp_path / "ViT-tiny.pt")
    assert equal(tensors_of(source), {"positional_embedding": archive.positional_embedding.data})
    assert "converted from the format of OpenAI CLIP" in source.notes


def test_openais_weights_are_refused_by_an_architecture_of_another_activation(tmp_path: Path) -> None:
    vision = {"tower": "vit", "image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16}
    text = {"tower": "clip-transformer", "context_length": 12, "width": 24, "heads": 2, "layers": 1}
    sections = {"vision": vision, "text": text, "tokenizer": {"type": "clip-bpe"}, "preprocess": {"type": "image"}}
    gelu: Json = {"model": "clip", "embed_dim": 16, **sections}
    state = zoo.build(gelu).state_dict()
    numbers = {"input_resolution": 32, "context_length": 12, "vocab_size": 49_408}
    torch.save(state | {key: torch.tensor(value) for key, value in numbers.items()}, tmp_path / "openai.pt")
    with pytest.raises(CheckpointError, match=r"vision\.activation is 'gelu', the weights are for 'quick_gelu'"):
        zoo.build(gelu, pretrained=tmp_path / "openai.pt")
    quick = ["vision.activation=quick_gelu", "text.activation=quick_gelu"]
    model = zoo.build(gelu, pretrained=tmp_path / "openai.pt", overrides=quick)
    assert equal(model.state_dict(), state)
    assert model.notes[-1] == "taken from the architecture, since the weights do not tell: tokenizer, preprocess"


@pytest.mark.parametrize("name", ["rn50", "vit-l14"])
def test_openais_weights_in_another_architecture_name_the_one_that_is_theirs(name: str, tmp_path: Path) -> None:
    numbers = dict.fromkeys(("input_resolution", "context_length", "vocab_size"), ())
    sparse = {
        key: torch.zeros(()).expand(shape) for key, shape in (shapes_of(name) | numbers).items()
    }  # one value each
    torch.save(sparse, tmp_path / "openai.pt")
    with pytest.raises(CheckpointError, match=f"Choose '{name}-quickgelu', or say overrides="):
        zoo.build(name, pretrained=tmp_path / "openai.pt")


# Apple's MobileCLIP


@pytest.mark.parametrize("tower", ["fastvit_mci0", "fastvit_mci1", "fastvit_mci2", "vit_base_mci_224"])
def test_apples_mobileclip_becomes_what_the_peer_makes_of_it(tower: str, tmp_path: Path) -> None:
    expected = mobileclip_file(tmp_path / "mobileclip.pt", tower)
    assert equal(tensors_of(open_checkpoint(tmp_path / "mobileclip.pt")), expected)


def test_the_first_s0_is_told_by_its_text_tower(tmp_path: Path) -> None:
    mobileclip_file(tmp_path / "s0.pt", "fastvit_mci0")
    published = torch.load(tmp_path / "s0.pt")
    text = {key: published.pop(key) for key in list(published) if key.startswith("text_encoder.transformer.0.")}
    published |= {key.replace("transformer.0", "transformer.1"): one for key, one in text.items()}
    published["text_encoder.transformer.0.token_mixer.layer_scale"] = torch.ones(24, 1, 1)
    torch.save(published, tmp_path / "s0.pt")
    for read in (zoo.identify, open_checkpoint):
        with pytest.raises(
            CheckpointError, match="weights of the first MobileCLIP S0, whose text tower mixes tokens by"
        ):
            read(tmp_path / "s0.pt")


# open_clip


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
@pytest.mark.parametrize("custom", [False, True], ids=["CLIP", "CustomTextCLIP"])
def test_a_folder_of_open_clip_becomes_the_model_that_it_states(custom: bool, name: str, tmp_path: Path) -> None:
    import open_clip

    arguments = peer.tiny_arguments(quick_gelu=True)
    theirs = peer.randomized((open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**arguments)).eval()
    images = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear", "resize_mode": "squash"}
    arguments["text_cfg"]["vocab_size"] = 49_408
    model = {**arguments, "custom_text": custom}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": images}))
    theirs = peer.randomized((open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**arguments)).eval()
    state = theirs.state_dict()
    if name.endswith(".bin"):
        torch.save(state, tmp_path / name)
    else:
        save_file(state, tmp_path / name)
    ours = zoo.build(tmp_path)
    assert equal(ours.state_dict(), state)
    pixels, ids = peer.images(ours), peer.captions(ours)
    with torch.no_grad():
        assert_close(ours.encode_image(pixels), theirs.encode_image(pixels))
        assert_close(ours.encode_text(ids), theirs.encode_text(ids))
    assert {
        key: list(one) if isinstance(one, tuple) else one for key, one in ours.config.preprocess if key in images
    } == images
    assert (ours.config.vision.activation, ours.config.text.activation) == ("quick_gelu", "quick_gelu")


def test_a_checkpoint_of_open_clips_training_is_read_without_its_wrappers(tmp_path: Path) -> None:
    import open_clip

    theirs = peer.randomized(open_clip.CLIP(**peer.tiny_arguments()))
    optimizer = torch.optim.AdamW(theirs.parameters())
    wrapped = {f"module.{key}": one for key, one in theirs.state_dict().items()}
    checkpoint = {"epoch": 3, "name": "run", "state_dict": wrapped, "optimizer": optimizer.state_dict()}
    torch.save(checkpoint, tmp_path / "epoch_3.pt")
    assert equal(tensors_of(open_checkpoint(tmp_path / "epoch_3.pt")), dict(theirs.state_dict()))
