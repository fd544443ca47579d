"""SigLIP of Hugging Face transformers.

It is `SiglipModel` and its towers, SigLIP 2 at fixed resolutions included. The story of the table: big_vision's weights
became timm's on one side (query, key and value of a block in one matrix) and transformers' on the other (three, but one
in the pooling head). transformers runs every SigLIP with GELU by tanh, as it was trained, where open_clip's first
SigLIPs have the exact GELU.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo_core.checkpoints import CheckpointFormat, Conversion, TensorInfo
from zoo_core.checkpoints.rules import Constant, Rule, Table
from zoo_core.checkpoints.tensor_steps import SCALAR, Reshape
from zoo_core.errors import CheckpointError, ConfigError
from zoo_formats.config import TransformersSiglipConfig
from zoo_formats.transformers.clip import block_rules, expect_plain, has_scalars, stack_file
from zoo_formats.transformers.image_processor import image_file, preprocessing
from zoo_formats.transformers.model_config import (
    ACTIVATIONS,
    Json,
    SiglipFile,
    SiglipTextCfg,
    SiglipVisionCfg,
    as_json,
    document_of,
    parsed,
)
from zoo_formats.transformers.siglip_backbones import EPSILON, Backbone, backbone_file, timm_options
from zoo_formats.transformers.tokenizer import folder_tokenizer

__all__ = [
    "BACKBONES",
    "FIRST",
    "TRUNK",
    "TransformersSiglip",
    "encoder_rules",
    "expect_logit_bias",
    "logit_rules",
    "text_file",
    "text_rules",
    "text_sections",
]

PROCESSOR = "SiglipImageProcessor"
WHOLE, IMAGE, TEXT = "siglip", "siglip_vision_model", "siglip_text_model"
TRUNK = "visual.trunk."


BACKBONES = {
    "vit_base_patch16_siglip_224": Backbone(224, 16),
    "vit_base_patch16_siglip_256": Backbone(256, 16),
    "vit_base_patch16_siglip_384": Backbone(384, 16),
    "vit_base_patch16_siglip_512": Backbone(512, 16),
    "vit_base_patch32_siglip_256": Backbone(256, 32, activation="gelu_tanh"),
    "vit_large_patch16_siglip_256": Backbone(256, 16, 1024, 24, 16, 4096),
    "vit_large_patch16_siglip_384": Backbone(384, 16, 1024, 24, 16, 4096),
    "vit_large_patch16_siglip_512": Backbone(512, 16, 1024, 24, 16, 4096, "gelu_tanh"),
    "vit_so400m_patch14_siglip_224": Backbone(224, 14, 1152, 27, 16, 4304),
    "vit_so400m_patch14_siglip_378": Backbone(378, 14, 1152, 27, 16, 4304),
    "vit_so400m_patch14_siglip_384": Backbone(384, 14, 1152, 27, 16, 4304),
    "vit_so400m_patch16_siglip_256": Backbone(256, 16, 1152, 27, 16, 4304, "gelu_tanh"),
    "vit_so400m_patch16_siglip_384": Backbone(384, 16, 1152, 27, 16, 4304, "gelu_tanh"),
    "vit_so400m_patch16_siglip_512": Backbone(512, 16, 1152, 27, 16, 4304, "gelu_tanh"),
    "vit_giantopt_patch16_siglip_256": Backbone(256, 16, 1536, 40, 16, 6144, "gelu_tanh"),
    "vit_giantopt_patch16_siglip_384": Backbone(384, 16, 1536, 40, 16, 6144, "gelu_tanh"),
}
"""Names of timm, the plainest first. Sizes that have no name are options of the plainest."""
PLAIN = "vit_base_patch16_siglip_224"
FIRST = {"logit_scale": math.log(10), "logit_bias": -10.0}
"""Of logit scale and bias, before training (Zhai et al. 2023)."""


def _image_rules(theirs: str) -> list[Rule]:
    positions = Reshape((None, None), (1, None, None))
    return [
        Rule(f"{theirs}embeddings.patch_embedding.{{p}}", f"{TRUNK}patch_embed.proj.{{p}}"),
        Rule(f"{theirs}embeddings.position_embedding.weight", f"{TRUNK}pos_embed", positions),
        *encoder_rules(theirs),
    ]


def encoder_rules(theirs: str) -> list[Rule]:
    """Return the rules of an image tower behind its embeddings."""
    block, pool = f"{theirs}encoder.layers.{{n}}", f"{TRUNK}attn_pool"
    return [
        Rule([f"{block}.self_attn.{part}_proj.{{p}}" for part in "qkv"], f"{TRUNK}blocks.{{n}}.attn.qkv.{{p}}"),
        Rule(f"{block}.self_attn.out_proj.{{p}}", f"{TRUNK}blocks.{{n}}.attn.proj.{{p}}"),
        Rule(f"{block}.layer_norm1.{{p}}", f"{TRUNK}blocks.{{n}}.norm1.{{p}}"),
        Rule(f"{block}.layer_norm2.{{p}}", f"{TRUNK}blocks.{{n}}.norm2.{{p}}"),
        Rule(f"{block}.mlp.{{layer}}.{{p}}", f"{TRUNK}blocks.{{n}}.mlp.{{layer}}.{{p}}"),
        Rule(f"{theirs}post_layernorm.{{p}}", f"{TRUNK}norm.{{p}}"),
        Rule(f"{theirs}head.probe", f"{pool}.latent"),
        Rule(
            [f"{pool}.q.{{p}}", f"{pool}.kv.{{p}}"],
            f"{theirs}head.attention.in_proj_{{p}}",
            proportions=(1, 2),
            splits=True,
        ),
        Rule(f"{theirs}head.attention.out_proj.{{p}}", f"{pool}.proj.{{p}}"),
        Rule(f"{theirs}head.layernorm.{{p}}", f"{pool}.norm.{{p}}"),
        Rule(f"{theirs}head.mlp.{{layer}}.{{p}}", f"{pool}.mlp.{{layer}}.{{p}}"),
    ]


def text_rules(theirs: str) -> list[Rule]:
    """Return the rules of the text tower."""
    return [
        Rule(f"{theirs}embeddings.token_embedding.weight", "text.token_embedding.weight"),
        Rule(f"{theirs}embeddings.position_embedding.weight", "text.positional_embedding"),
        *block_rules(f"{theirs}encoder", "text.transformer"),
        Rule(f"{theirs}final_layer_norm.{{p}}", "text.ln_final.{p}"),
        Rule(f"{theirs}head.{{p}}", "text.text_projection.{p}"),
    ]


def logit_rules(scalars: bool = True) -> list[Rule]:
    """Return the rules of logit scale and bias: always of one element there, and scalars here or not."""
    steps = (SCALAR,) if scalars else ()
    return [Rule("logit_scale", "logit_scale", *steps), Rule("logit_bias", "logit_bias", *steps)]


def _whole(scalars: bool = True) -> Table:
    """Return the table of a whole model, and of towers as versions before 5 saved them."""
    return Table(
        [
            *logit_rules(scalars),
            *_image_rules("vision_model."),
            *text_rules("text_model."),
        ],
        ignored=["vision_model.embeddings.position_ids", "text_model.embeddings.position_ids"],
    )


def _table(entries: Mapping[str, TensorInfo]) -> Table:
    """Return the table for some entries; version 5 saves towers without a prefix."""
    if "head.probe" in entries:
        return Table(_image_rules(""), ["embeddings.position_ids"])
    if "embeddings.token_embedding.weight" in entries:
        return Table(text_rules(""), ["embeddings.position_ids"])
    return _whole()


class TransformersSiglip(CheckpointFormat):
    """The format of transformers' SigLIP."""

    name = "transformers SigLIP"
    library = "transformers"
    model_types = (WHOLE, IMAGE, TEXT)

    def __init__(self, config: TransformersSiglipConfig) -> None:
        pass

    def recognises(self, entries: Mapping[str, TensorInfo]) -> bool:
        """Tell by the pooling head of the image tower, or the head of the text tower beside its embeddings."""
        for prefix in ("vision_model.", ""):
            if f"{prefix}head.probe" in entries and f"{prefix}embeddings.position_embedding.weight" in entries:
                # SigLIP 2 of any aspect ratio has a linear layer there, since its patches arrive flat
                patches = entries.get(f"{prefix}embeddings.patch_embedding.weight")
                return patches is None or len(patches.shape) != 2
        return any(
            f"{prefix}head.weight" in entries and f"{prefix}embeddings.token_embedding.weight" in entries
            for prefix in ("text_model.", "")
        )

    def plan(self, entries: Mapping[str, TensorInfo]) -> Sequence[Conversion]:
        """Return the conversions to a timm backbone and a text tower below `text.`.

        A tower alone has no logit scale and bias, and makes no logits: the parameters get their usual first values.
        """
        plan = _table(entries).plan(entries)
        has_both = "vision_model.head.probe" in entries and "text_model.head.weight" in entries
        if "logit_scale" in entries or "logit_bias" in entries or has_both:
            return plan
        return [*plan, *(Constant(key, value) for key, value in FIRST.items())]

    def ignores(self, entries: Mapping[str, TensorInfo]) -> Collection[str]:
        """Return the counted positions that old versions saved."""
        return _table(entries).ignores(entries)

    def architecture(self, folder: Path) -> Mapping[str, Any] | None:
        """Return the architecture that `config.json` and `preprocessor_config.json` state.

        Of a folder with one tower, the other one is a stand-in, which no weights fill.
        """
        document = document_of(folder, self.model_types)
        if document is None:
            return None
        kind = document.data["model_type"]
        try:
            if kind == WHOLE:
                file = parsed(SiglipFile, document)
            elif kind == IMAGE:
                vision = parsed(SiglipVisionCfg, document)
                stand_in = SiglipTextCfg(projection_size=vision.hidden_size)
                file = SiglipFile(vision_config=vision, text_config=stand_in)
            else:
                text = parsed(SiglipTextCfg, document)
                width = text.projection_size or text.hidden_size
                stand_in = SiglipVisionCfg(hidden_size=width, intermediate_size=4 * width, num_attention_heads=1)
                file = SiglipFile(text_config=text, vision_config=stand_in)
            architecture = _architecture(file, folder)
        except ConfigError as error:
            raise error if any(problem.source for problem in error.problems) else document.locate(error) from None
        if kind == TEXT:
            return {**architecture, "description": "The text tower of SigLIP alone", "preprocess": {"type": "image"}}
        alone = {"description": "The image tower of SigLIP alone"} if kind == IMAGE else {}
        images = preprocessing(folder, file.vision_config.image_size, PROCESSOR)
        return {**architecture, **alone, "preprocess": images}

    def export(self, entries: Mapping[str, TensorInfo], config: Mapping[str, Any]) -> Sequence[Conversion]:
        """Return the conversions to `SiglipModel`."""
        expect_plain(config, self.name, "timm")
        expect_logit_bias(entries, self.name)
        return _whole(has_scalars(entries)).inverse().plan(entries)

    def files(self, config: Mapping[str, Any]) -> Mapping[str, bytes]:
        """Return `config.json` and `preprocessor_config.json`."""
        expect_plain(config, self.name, "timm")
        images = image_file(config["preprocess"], config["vision"]["image_size"][0], PROCESSOR)
        vision = config["vision"]
        backbone = backbone_file(self.name, BACKBONES, vision["name"], vision.get("kwargs", {}))
        file = {
            "architectures": ["SiglipModel"],
            "model_type": WHOLE,
            "vision_config": {"model_type": IMAGE, "image_size": vision["image_size"][0], **backbone},
            "text_config": {"model_type": TEXT, **text_file(config)},
        }
        return {"config.json": as_json(file), "preprocessor_config.json": as_json(images)}


def _architecture(file: SiglipFile, folder: Path) -> Json:
    text, vision = file.text_config, file.vision_config
    width = text.projection_size or text.hidden_size
    if width != vision.hidden_size:
        raise ConfigError(
            f"text_config.projection_size {width} is not vision_config.hidden_size {vision.hidden_size}: "
            "features of different widths cannot be compared"
        )
    if vision.layer_norm_eps != EPSILON:
        raise ConfigError(f"vision_config.layer_norm_eps cannot be expressed: it is {EPSILON:g} in timm's backbones")
    return {
        "model": "custom-text-clip",
        "embed_dim": vision.hidden_size,
        "init_logit_scale": FIRST["logit_scale"],
        "init_logit_bias": FIRST["logit_bias"],
        "vision": _vision(vision),
        **text_sections(text, folder),
    }


def text_sections(text: SiglipTextCfg, folder: Path) -> Json:
    """Return the sections of the text tower and its tokenizer, which is that of the folder."""
    tower = {
        "tower": "clip-transformer",
        "context_length": text.max_position_embeddings,
        "vocab_size": text.vocab_size,
        "heads": text.num_attention_heads,
        **text.stack(),
        "causal": False,
        "pool_type": "last",
        "proj_bias": True,
    }
    return {"text": tower, "tokenizer": folder_tokenizer(folder, text.vocab_size, text.max_position_embeddings)}


def _vision(cfg: SiglipVisionCfg) -> Json:
    backbone = Backbone(
        cfg.image_size,
        cfg.patch_size,
        cfg.hidden_size,
        cfg.num_hidden_layers,
        cfg.num_attention_heads,
        cfg.intermediate_size,
        ACTIVATIONS[cfg.hidden_act],
    )
    name = _nearest(backbone)
    options = timm_options(BACKBONES[name], backbone)
    return {
        "tower": "timm",
        "name": name,
        "image_size": cfg.image_size,
        "pool": "map",
        "proj": "none",
        **({"kwargs": options} if options else {}),
    }


def _nearest(backbone: Backbone) -> str:
    """Return the backbone of these sizes, of this image size if there is one; the plainest where there is none."""
    sizes = ("patch_size", "width", "layers", "heads", "hidden")
    same = [
        name for name, other in BACKBONES.items() if all(getattr(other, key) == getattr(backbone, key) for key in sizes)
    ]
    exact = [name for name in same if BACKBONES[name].image_size == backbone.image_size]
    return (exact or same or [PLAIN])[0]


def text_file(config: Mapping[str, Any]) -> Json:
    """Return the keys of transformers for the text tower of an architecture; its tokenizer knows the special tokens."""
    text = config["text"]
    return {
        "vocab_size": text["vocab_size"],
        "max_position_embeddings": text["context_length"],
        "num_attention_heads": text["heads"],
        "projection_size": config["embed_dim"],
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
        **stack_file(text),
    }


def expect_logit_bias(entries: Mapping[str, TensorInfo], format_name: str) -> None:
    """Refuse a model without a bias, which SigLIP always has: transformers would make one up.

    Raises:
        CheckpointError: there is no such entry.
    """
    if "logit_bias" not in entries:
        raise CheckpointError(f"{format_name} cannot express a model without logit_bias (init_logit_bias: null)")
