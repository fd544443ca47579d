"""Weights as their authors published them, big_vision, OpenAI, Apple and open_clip: read here as the peer reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import peer
import zoo
from foreign import WORDS, assert_close, equal, tensors_of
from zoo.catalog.state_dict_shapes import shapes_of
from zoo.checkpoints.open import open_checkpoint
from zoo_core.errors import CheckpointError

Json = dict[str, Any]


# big_vision


def big_vision_arrays(stacked: bool, width: int = 32, heads: int = 2, layers: int = 2) -> dict[str, Any]:
    """Return random arrays in the layout that big_vision saves."""
    generator = torch.Generator().manual_seed(0)
    inner, head = 3 * width, width // heads

    def attention(prefix: str) -> dict[str, tuple[int, ...]]:
        sides = {f"{prefix}/{one}/kernel": (width, heads, head) for one in ("query", "key", "value")}
        biases = {f"{prefix}/{one}/bias": (heads, head) for one in ("query", "key", "value")}
        return sides | biases | {f"{prefix}/out/kernel": (heads, head, width), f"{prefix}/out/bias": (width,)}

    def norm(prefix: str) -> dict[str, tuple[int, ...]]:
        return {f"{prefix}/scale": (width,), f"{prefix}/bias": (width,)}

    def mlp(prefix: str) -> dict[str, tuple[int, ...]]:
        first = {f"{prefix}/Dense_0/kernel": (width, inner), f"{prefix}/Dense_0/bias": (inner,)}
        return first | {f"{prefix}/Dense_1/kernel": (inner, width), f"{prefix}/Dense_1/bias": (width,)}

    def blocks(prefix: str) -> dict[str, tuple[int, ...]]:
        one = (
            norm("LayerNorm_0") | norm("LayerNorm_1") | mlp("MlpBlock_0") | attention("MultiHeadDotProductAttention_0")
        )
        if stacked:
            return {f"{prefix}encoderblock/{key}": (layers, *shape) for key, shape in one.items()}
        return {f"{prefix}encoderblock_{n}/{key}": shape for n in range(layers) for key, shape in one.items()}

    shapes = {
        "params/t": (1,),
        "params/b": (1,),
        "params/img/embedding/kernel": (16, 16, 3, width),
        "params/img/embedding/bias": (width,),
        "params/img/pos_embedding": (1, 4, width),
        **blocks("params/img/Transformer/"),
        **norm("params/img/Transformer/encoder_norm"),
        "params/img/MAPHead_0/probe": (1, 1, width),
        **norm("params/img/MAPHead_0/LayerNorm_0"),
        **mlp("params/img/MAPHead_0/MlpBlock_0"),
        **attention("params/img/MAPHead_0/MultiHeadDotProductAttention_0"),
        "params/txt/Embed_0/embedding": (WORDS, width),
        "params/txt/pos_embedding": (1, 12, width),
        **blocks("params/txt/Encoder_0/"),
        **norm("params/txt/Encoder_0/encoder_norm"),
        "params/txt/head/kernel": (width, width),
        "params/txt/head/bias": (width,),
    }
    return {key: torch.randn(shape, generator=generator).numpy() for key, shape in shapes.items()}


def big_vision_file(folder: Path, stacked: bool = False, root: str = "params/") -> tuple[Path, dict[str, Tensor]]:
    """Write weights of big_vision, and return the file and what the peer makes of it."""
    import numpy
    import open_clip
    import timm
    from open_clip.convert import load_big_vision_weights

    file = folder / "weights.npz"
    numpy.savez(file, **{key.replace("params/", root): one for key, one in big_vision_arrays(stacked).items()})
    text = {"context_length": 12, "vocab_size": WORDS, "width": 32, "heads": 2, "layers": 2, "mlp_ratio": 3}
    arguments = peer.tiny_arguments(embed_dim=32, init_logit_bias=-10)
    arguments["text_cfg"] = text | {"proj_bias": True, "no_causal_mask": True, "pool_type": "last"}
    theirs = open_clip.CustomTextCLIP(**arguments)
    theirs.visual = torch.nn.Module()
    theirs.visual.trunk = timm.create_model(
        "vit_base_patch16_siglip_224", img_size=32, embed_dim=32, depth=2, num_heads=2, mlp_ratio=3, num_classes=0
    )
    load_big_vision_weights(theirs, str(file))
    return file, dict(theirs.state_dict())


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
    assert "converted from the layout of OpenAI CLIP" in source.notes


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


APPLE_PARTS = {
    "stem": "patch_embed",
    "conv_kxk": "rbr_conv",
    "conv_scale": "rbr_scale",
    "identity": "rbr_skip",
    "final_conv": "conv_exp",
    "large_conv": "lkb_origin",
    "mlp": "convffn",
}


def apple_fastvit_name(key: str, stages: int) -> str:
    """Return the name that an entry of timm's FastViT has in Apple's files, where all that a stage holds is a row."""
    row: list[str] = []
    for stage in range(stages):
        row += [f"stages.{stage}.downsample."] if stage else []
        row += [f"stages.{stage}.pos_emb."] if stage == stages - 1 else []
        row += [f"stages.{stage}.blocks."]
    for place, prefix in enumerate(row):
        if key.startswith(prefix):
            rest = key.removeprefix(prefix).replace("pos_enc", "pe")
            key = f"network.{place}.{rest}"
    key = key.replace(".se.fc1.", ".se.reduce.").replace(".se.fc2.", ".se.expand.").removesuffix(".gamma")
    return ".".join(APPLE_PARTS.get(part, part) for part in key.split("."))


def apple_hybrid_name(key: str) -> str:
    names = {"patch_embed.backbone.": "patch_emb.", ".conv.": ".block.conv.", ".bn.": ".block.norm."}
    if key.startswith("patch_embed."):
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        return key
    key = key.replace("blocks.", "transformer.").replace(".norm1.", ".pre_norm_mha.0.")
    key = key.replace(".attn.qkv.", ".pre_norm_mha.1.qkv_proj.").replace(".attn.proj.", ".pre_norm_mha.1.out_proj.")
    key = key.replace(".norm2.", ".pre_norm_ffn.0.").replace(".mlp.fc1.", ".pre_norm_ffn.1.")
    return key.replace(".mlp.fc2.", ".pre_norm_ffn.4.").replace("norm.", "post_transformer_norm.", key[:5] == "norm.")


def apple_text(width: int = 24) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "embedding_layer.weight": (WORDS, width),
        "positional_embedding.pos_embed.pos_embed": (1, 1, 12, width),
        "final_layer_norm.weight": (width,),
        "final_layer_norm.bias": (width,),
        "projection_layer": (width, 16),
    }
    for layer in range(2):
        block = f"transformer.{layer}"
        for part, rows in {"pre_norm_mha.1.qkv_proj": 3 * width, "pre_norm_mha.1.out_proj": width}.items():
            shapes |= {f"{block}.{part}.weight": (rows, width), f"{block}.{part}.bias": (rows,)}
        for part in ("pre_norm_mha.0", "pre_norm_ffn.0"):
            shapes |= {f"{block}.{part}.weight": (width,), f"{block}.{part}.bias": (width,)}
        shapes |= {f"{block}.pre_norm_ffn.1.weight": (4 * width, width), f"{block}.pre_norm_ffn.1.bias": (4 * width,)}
        shapes |= {f"{block}.pre_norm_ffn.4.weight": (width, 4 * width), f"{block}.pre_norm_ffn.4.bias": (width,)}
    return {f"text_encoder.{key}": torch.randn(shape) for key, shape in shapes.items()}


def mobileclip_file(file: Path, tower: str) -> dict[str, Tensor]:
    """Write weights of Apple's, and return what the peer makes of them, which has to load in its model."""
    import open_clip
    import timm
    from open_clip.convert import convert_mobile_clip_state_dict

    fast = tower.startswith("fastvit")
    if fast:
        sizes: Json = {"embed_dims": (16, 16, 16, 32), "layers": (1, 1, 2, 1)}
    else:
        sizes = {"depth": 2}
    trunk: Any = timm.create_model(tower, num_classes=16, **sizes)
    state = {key: torch.randn_like(one) if one.is_floating_point() else one for key, one in trunk.state_dict().items()}
    state |= {key: one.abs() for key, one in state.items() if key.endswith("running_var")}
    head = "head.fc." if fast else "head."
    projection, bias = state.pop(f"{head}weight"), state.pop(f"{head}bias")
    names = {key: apple_fastvit_name(key, 4) if fast else apple_hybrid_name(key) for key in state}
    published = {f"image_encoder.model.{names[key]}": one for key, one in state.items()}
    published[f"image_encoder.model.{'head.proj' if fast else 'classifier.proj'}"] = projection.T.contiguous()
    if not fast:
        published["image_encoder.model.pos_embed.pos_embed.pos_embed"] = state["pos_embed"][None]
        del published["image_encoder.model.pos_embed"]
    published |= apple_text() | {"logit_scale": torch.tensor(3.0)}
    torch.save(published, file)

    arguments = peer.tiny_arguments(embed_dim=16)
    arguments["text_cfg"] |= {"vocab_size": WORDS, "layers": 2}
    theirs: Any = open_clip.CustomTextCLIP(**arguments)
    theirs.visual = torch.nn.Module()
    theirs.visual.trunk = trunk
    expected = convert_mobile_clip_state_dict(theirs, published, fastvit=fast)
    assert torch.equal(expected[f"visual.trunk.{head}bias"], torch.zeros_like(bias))
    theirs.load_state_dict(expected, strict=True)
    return expected


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
