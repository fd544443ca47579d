"""What code for open_clip reads of models, towers, tokenizers and losses: here with its values, or in the docs as not."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.loss import DistillClipLoss as PeerDistillClipLoss
from open_clip.loss import SigLipLoss as PeerSigLipLoss
from open_clip.transform import PreprocessCfg
from torch import nn

import zoo
from support.models.families import FAMILIES, model_of
from support.peer import small_pair, small_peer_config

PAGE = Path(__file__).parents[2] / "docs" / "from-open-clip.md"
ATTENTION = "visual.transformer.resblocks.0.attn"
PARTS = (
    "", "visual", "visual.transformer", "visual.transformer.resblocks.0", ATTENTION, "visual.attnpool", "text",
    "transformer", "transformer.resblocks.0", "text.transformer", "text_decoder",
)  # fmt: skip
LOSSES = {
    "contrastive": open_clip.ClipLoss,
    "sigmoid": PeerSigLipLoss,
    "distillation": PeerDistillClipLoss,
}


def absent() -> dict[str, set[str]]:
    """Return the attributes that the docs name as not here, by class."""
    found: dict[str, set[str]] = {}
    rows = re.findall(
        r"^\| ([^|]*) \| ([^|]*) \| [^|]* \|$", PAGE.read_text().partition("Attributes of")[2], re.MULTILINE
    )
    for classes, names in rows:
        for one in re.findall(r"\w+", classes):
            found.setdefault(one, set()).update(re.findall(r"`(\w+)`", names))
    return found


def public(value: object) -> set[str]:
    """Return the public attributes of an object beyond those that any module, or any object, has."""
    base = nn.Module() if isinstance(value, nn.Module) else object()
    return {name for name in dir(value) if not name.startswith("_")} - set(dir(base))


def coca_pair() -> tuple[Any, Any]:
    """Return a small CoCa of ours and the peer's."""
    text = {"context_length": 10, "vocab_size": 600, "width": 16, "heads": 2, "layers": 1, "embed_cls": True}
    vision = {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16, "output_tokens": True}
    decoder = {"width": 16, "heads": 2, "layers": 1, "context_length": 10}
    theirs = open_clip.CoCa(16, multimodal_cfg=decoder, text_cfg=text | {"output_tokens": True}, vision_cfg=vision)
    return model_of("CoCa"), theirs


def pairs() -> dict[str, tuple[Any, Any]]:
    """Return models of ours beside the peer's."""
    ours, theirs = small_pair("vit-b32")
    config = small_peer_config("vit-b32")
    custom = zoo.CustomTextCLIP(ours.config.embed_dim, ours.config.vision, ours.config.text)
    return {
        "CLIP": (ours, theirs),
        "ResNet": small_pair("rn50"),
        "CustomTextCLIP": (custom, open_clip.CustomTextCLIP(**config)),
        "CoCa": coca_pair(),
    }


def part(model: Any, path: str) -> Any:
    """Return a part of a model; None where it has no such part."""
    for name in path.split(".") if path else ():
        model = getattr(model, name, None)
    return model


def test_every_attribute_of_the_peers_models_is_here_or_in_the_docs() -> None:
    told, lacking = absent(), set[tuple[str, str]]()
    for ours, theirs in pairs().values():
        for path in PARTS:
            one, other = part(ours, path), part(theirs, path)
            if one is None or other is None or path == "text_decoder":
                continue
            lacking |= {(type(one).__name__, name) for name in public(other) if not hasattr(one, name)}
    documented = {(one, name) for one, names in told.items() for name in names}
    assert lacking <= documented
    assert {pair for pair in documented if pair[0] not in ("losses", "ClipBpeTokenizer")} == lacking


@pytest.mark.parametrize("name", LOSSES)
def test_every_attribute_of_the_peers_losses_is_here_or_in_the_docs(name: str) -> None:
    lacking = {one for one in public(LOSSES[name]()) if not hasattr(zoo.loss(name), one)}
    assert lacking <= absent()["losses"]


def test_every_attribute_of_the_peers_tokenizer_is_here_or_in_the_docs() -> None:
    ours, theirs = zoo.tokenizer("vit-b32"), open_clip.SimpleTokenizer()
    assert {name for name in public(theirs) if not hasattr(ours, name)} == absent()["ClipBpeTokenizer"]
    for name in (
        "encoder",
        "decoder",
        "sot_token_id",
        "eot_token_id",
        "all_special_ids",
        "vocab_size",
        "context_length",
    ):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert zoo.build(FAMILIES["CLIPA"].architecture).tokenizer.encoder["<end_of_text>"] == 599


VALUES = {
    "visual": ("grid_size", "patch_size", "output_dim"),
    "visual.transformer": ("width", "layers", "batch_first", "grad_checkpointing"),
    "transformer": ("width", "layers", "batch_first", "grad_checkpointing"),
    ATTENTION: ("num_heads", "head_dim", "embed_dim", "batch_first"),
    "transformer.resblocks.0.attn": ("num_heads", "head_dim", "embed_dim", "batch_first"),
    "": ("context_length", "vocab_size", "text_pool_type"),
}


@pytest.mark.parametrize("name", ["vit-b32", "vit-h14-clipa"])
def test_attributes_have_the_values_of_the_peers(name: str) -> None:
    ours, theirs = small_pair(name)
    for path, names in VALUES.items():
        for one in names:
            assert getattr(part(ours, path), one) == getattr(part(theirs, path), one), f"{path}.{one}"
    for dtype in (torch.float32, torch.bfloat16):
        for path in ("visual.transformer", "transformer"):
            assert part(ours.to(dtype), path).get_cast_dtype() == part(theirs.to(dtype), path).get_cast_dtype() == dtype
            assert part(ours, path).resblocks[0].get_weight_dtype() == dtype
        assert ours.dtype == dtype
    ours, theirs = ours.float(), theirs.float()
    if theirs.attn_mask is None:
        assert ours.attn_mask is None
    else:
        assert torch.equal(ours.attn_mask, theirs.attn_mask) and not ours.attn_mask.requires_grad
    assert ours.text_eos_id is None  # the peer's is 2, where the largest id is read


def test_the_text_tower_shows_the_attributes_of_the_peers() -> None:
    ours, theirs = coca_pair()
    for name in ("num_pos", "width", "heads", "vocab_size"):
        assert getattr(ours.text, name) == getattr(theirs.text, name)
    assert ours.pad_id == theirs.pad_id
    assert torch.equal(ours.text.attn_mask, theirs.text.attn_mask)
    eos = FAMILIES["ViT CLIP"].architecture
    eos["text"] |= {"pool_type": "eos", "eos_id": 599}
    assert (zoo.build(eos).text_eos_id, zoo.build(eos).text_pool_type) == (599, "eos")
    assert not hasattr(zoo.build(FAMILIES["HF text"].architecture), "attn_mask")


@pytest.mark.parametrize(
    "options",
    [{}, {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize_mode": "longest", "interpolation": "bilinear"}],
)
def test_the_image_tower_shows_the_preprocessing_as_the_peers_does(options: dict[str, Any]) -> None:
    model = zoo.build(FAMILIES["ViT CLIP"].architecture | {"preprocess": {"type": "image", **options}})
    peers = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    expected = asdict(PreprocessCfg(size=(32, 48), **peers))
    visual = model.visual
    assert visual.preprocess_cfg == expected
    assert (visual.image_mean, visual.image_std) == (expected["mean"], expected["std"])
    assert open_clip.model.get_model_preprocess_cfg(model) == expected
    for preprocess in ({"type": "image"}, {"type": "naflex", "patch_size": 8}):
        naflex = zoo.build(FAMILIES["timm NaFlex"].architecture | {"preprocess": preprocess})
        assert naflex.visual.image_mean == naflex.config.preprocess.mean
