"""One tiny model of each family that zoo builds, as data: what `parity/test_behaviours.py` runs on and docs/behaviours.md shows.

A new family is one line of `FAMILIES`, a new kind of tower one entry above it. What a tower cannot give is told here with
the reason, and tests hold the refusal to it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

import zoo
from support.peer import captions, randomized

Json = dict[str, Any]

EMBED_DIM, VOCABULARY, CONTEXT = 16, 600, 10


@dataclass(frozen=True)
class Tower:
    """A tower of a family.

    Attributes:
        config: its section of the architecture.
        blocks: names of the modules whose outputs are the intermediates; one name may be that of a list of modules.
        norm: the final norm that intermediates can be given, or None.
        refuses_norm: asking for the norm that there is not is an error, where it would be expected to do something.
        extra: tokens that the blocks carry beside those of patches or words.
        lacks: what it cannot give, by behaviour, and why.
    """

    config: Json
    blocks: tuple[str, ...]
    norm: str | None = None
    refuses_norm: bool = False
    extra: int = 0
    lacks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """A model over two towers; `options` are further keys of the architecture."""

    model: str
    vision: Tower
    text: Tower
    options: Json = field(default_factory=dict)
    lacks: Mapping[str, str] = field(default_factory=dict)

    @property
    def architecture(self) -> Json:
        """The config of the whole."""
        return {
            "model": self.model,
            "embed_dim": EMBED_DIM,
            "vision": self.vision.config,
            "text": {"vocab_size": VOCABULARY, "context_length": CONTEXT, **self.text.config},
            "tokenizer": {"type": "clip-bpe", "vocab_size": VOCABULARY},
            "preprocess": {"type": "image"},
            **self.options,
        }

    def reason(self, behaviour: str) -> str | None:
        """Return why this family has not a behaviour; None where it has."""
        return next((one.lacks[behaviour] for one in (self, self.vision, self.text) if behaviour in one.lacks), None)

    def build(self, seed: int = 0) -> Any:
        """Return a model in evaluation mode whose weights show every part."""
        return randomized(zoo.build(self.architecture), seed).eval()


NO_SYMBOLS = {"fx_traced": "a tower of this family decides by sizes, which `symbolic_trace` does not tell"}

VIT_SIZES: Json = {"tower": "vit", "image_size": [32, 48], "patch_size": 16, "width": 32, "layers": 2, "head_width": 16}
VIT_PARTS: Json = {"blocks": ("transformer.resblocks",), "norm": "ln_post", "extra": 1}
VIT = Tower(VIT_SIZES, **VIT_PARTS)
CLIPA_VIT = Tower(VIT_SIZES | {"ln_pre": False, "pool_type": "avg", "final_ln_after_pool": True}, **VIT_PARTS)
COCA_VIT = Tower(
    VIT_SIZES | {"attentional_pool": "single", "attn_pooler_queries": 5, "attn_pooler_heads": 4},
    blocks=VIT_PARTS["blocks"],
    refuses_norm=True,
    extra=1,
    lacks={
        "normed_image_intermediates": "the final norm stands behind the attentional pool and has its width",
    },
)
RESNET = Tower(
    {"tower": "modified-resnet", "image_size": [32, 64], "layers": [1, 1, 1, 1], "width": 8, "head_width": 16},
    blocks=("avgpool", "layer1.0", "layer2.0", "layer3.0", "layer4.0"),
    refuses_norm=True,
    lacks=NO_SYMBOLS | {"normed_image_intermediates": "a modified ResNet has no final norm"},
)
TIMM_CONVNEXT = Tower(
    {"tower": "timm", "name": "test_convnext", "image_size": [64, 96]},
    blocks=("trunk.stages",),
    lacks=NO_SYMBOLS
    | {
        "image_prefix": "stages of a convolutional backbone carry no tokens beside their map",
        "normed_image_intermediates": "timm's ConvNeXt norms no map: they come as they are",
    },
)
TIMM_SIGLIP = Tower(
    {
        "tower": "timm",
        "name": "vit_base_patch16_siglip_224",
        "image_size": [32, 48],
        "pool": "map",
        "proj": "none",
        "kwargs": {"depth": 2, "embed_dim": EMBED_DIM, "num_heads": 2},
    },
    blocks=("trunk.blocks",),
    norm="trunk.norm",
    lacks=NO_SYMBOLS | {"image_prefix": "SigLIP's ViT has no class token and no registers"},
)
TIMM_NAFLEX = Tower(
    {
        "tower": "naflex",
        "name": "naflexvit_base_patch16_siglip",
        "image_size": [16, 24],
        "patch_size": 8,
        "pool": "map",
        "kwargs": {"embed_dim": 32, "depth": 2, "num_heads": 2, "pos_embed_grid_size": [3, 3]},
    },
    blocks=("trunk.blocks",),
    norm="trunk.norm",
    lacks=NO_SYMBOLS | {"image_prefix": "this NaFlexViT has no class token and no registers"},
)

TEXT_SIZES: Json = {"tower": "clip-transformer", "width": 24, "heads": 2, "layers": 2}
NO_SUFFIX = {"text_suffix": "this text tower appends no token of its own"}
TEXT_PARTS: Json = {"blocks": ("transformer.resblocks",), "norm": "ln_final", "lacks": NO_SUFFIX}
TEXT = Tower(TEXT_SIZES, **TEXT_PARTS)
BIDIRECTIONAL_TEXT = Tower(TEXT_SIZES | {"causal": False, "pool_type": "last"}, **TEXT_PARTS)
COCA_TEXT = Tower(
    TEXT_SIZES | {"width": EMBED_DIM, "class_token": True, "pool_type": "last", "pad_id": 0},
    blocks=TEXT_PARTS["blocks"],
    norm="ln_final",
    extra=1,
    lacks=NO_SYMBOLS,
)
MODERN_TEXT = Tower(
    TEXT_SIZES | {"tower": "modern-transformer", "attn_gated": True, "eos_id": VOCABULARY - 1, "pad_id": 0},
    blocks=("blocks",),
    norm="ln_final",
    lacks=NO_SUFFIX | NO_SYMBOLS,
)
ROBERTA_SIZES: Json = {
    "model_type": "roberta",
    "hidden_size": EMBED_DIM,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
}
ROBERTA = Tower(
    {"tower": "hf-text", "config": ROBERTA_SIZES, "pad_id": 0},
    blocks=("transformer.encoder.layer",),
    lacks=NO_SUFFIX
    | NO_SYMBOLS
    | {"fx_recorded": "encoders of transformers look at the values of their mask"}
    | {"normed_text_intermediates": "each layer of RoBERTa ends in its norm: they come normed"},
)

DECODER: Json = {"multimodal": {"width": EMBED_DIM, "heads": 2, "layers": 2}}
NAMED = {"forward_as_tuple": "CoCa's outputs, with logits and labels of the captions, come by name alone"}
BIAS: Json = {"init_logit_bias": -2.5}

FAMILIES: dict[str, Family] = {
    "ViT CLIP": Family("clip", VIT, TEXT),
    "ResNet CLIP": Family("clip", RESNET, TEXT),
    "CustomTextCLIP": Family("custom-text-clip", VIT, TEXT, BIAS),
    "CLIPA": Family("clip", CLIPA_VIT, BIDIRECTIONAL_TEXT),
    "timm ConvNeXt": Family("clip", TIMM_CONVNEXT, TEXT),
    "timm SigLIP": Family("custom-text-clip", TIMM_SIGLIP, BIDIRECTIONAL_TEXT, BIAS),
    "timm NaFlex": Family("custom-text-clip", TIMM_NAFLEX, BIDIRECTIONAL_TEXT, BIAS),
    "modern text": Family("custom-text-clip", VIT, MODERN_TEXT),
    "HF text": Family("custom-text-clip", VIT, ROBERTA),
    "CoCa": Family("coca", COCA_VIT, COCA_TEXT, DECODER, NAMED),
    "CoCa, HF text": Family("coca", COCA_VIT, ROBERTA, DECODER | {"text_sees_ahead": True}, NAMED),
}


@cache
def _built(name: str) -> Any:
    return FAMILIES[name].build()


def model_of(name: str) -> Any:
    """Return a model of a family that is the caller's own."""
    return copy.deepcopy(_built(name))


def pictures(model: Any, count: int = 3, seed: int = 0) -> Tensor:
    """Return `[count, 3, H, W]` noise of the size that a model takes."""
    return torch.randn(count, 3, *model.visual.image_size, generator=torch.Generator().manual_seed(seed))


def words(model: Any, count: int = 3, seed: int = 0) -> Tensor:
    """Return token ids `[count, context_length]` of several lengths, with the padding of the tower."""
    text = captions(model, count, seed)
    pad_id = getattr(model.text, "pad_id", None)
    return text if pad_id is None else text.masked_fill(text == 0, pad_id)
