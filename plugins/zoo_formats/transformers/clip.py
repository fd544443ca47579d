"""CLIP of Hugging Face transformers.

It is `CLIPModel`, and its towers with a projection or without. The story of the table: transformers wrote CLIP anew,
with query, key and value apart and projections as linear layers, where the first CLIP had one matrix for the three and
bare matrices. `eos_token_id` 2 is no token: until 2023 every config said it by mistake, and it still means that the
largest id of a caption is its end. A tower without a projection gives its pooled token. Captions are not projected here
either, and images by the identity, which changes no bit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo_core.checkpoints import CheckpointFormat, Conversion, TensorInfo
from zoo_core.checkpoints.rules import Constant, Identity, Rule, Table
from zoo_core.checkpoints.tensor_steps import SCALAR, TRANSPOSED
from zoo_core.documents import Document
from zoo_core.errors import CheckpointError
from zoo_formats.config import TransformersClipConfig
from zoo_formats.transformers.image_processor import image_file, preprocessing
from zoo_formats.transformers.model_config import (
    ACTIVATIONS,
    ClipFile,
    ClipTextCfg,
    ClipVisionCfg,
    Json,
    as_json,
    document_of,
    parsed,
)
from zoo_formats.transformers.tokenizer import folder_tokenizer, holds_vocabulary

__all__ = ["TransformersClip", "block_rules", "expect_plain", "has_scalars", "stack_file"]

LEGACY_EOS = 2
NORM = "post_layernorm.weight"
EMBEDDINGS = "embeddings.token_embedding.weight"
PROCESSOR = "CLIPImageProcessor"
WHOLE, IMAGE, TEXT = "clip", "clip_vision_model", "clip_text_model"
STAND_IN = {"image": "The image tower of CLIP alone", "text": "The text tower of CLIP alone"}


def block_rules(theirs: str, ours: str) -> list[Rule]:
    """Return the rules of a stack of blocks of transformers that is a `Transformer` of ours."""
    parts = [f"{theirs}.layers.{{n}}.self_attn.{part}_proj.{{p}}" for part in "qkv"]
    block = f"{ours}.resblocks.{{n}}"
    return [
        Rule(parts, f"{block}.attn.in_proj_{{p}}"),
        Rule(f"{theirs}.layers.{{n}}.self_attn.out_proj.{{p}}", f"{block}.attn.out_proj.{{p}}"),
        Rule(f"{theirs}.layers.{{n}}.layer_norm1.{{p}}", f"{block}.ln_1.{{p}}"),
        Rule(f"{theirs}.layers.{{n}}.layer_norm2.{{p}}", f"{block}.ln_2.{{p}}"),
        Rule(f"{theirs}.layers.{{n}}.mlp.fc1.{{p}}", f"{block}.mlp.c_fc.{{p}}"),
        Rule(f"{theirs}.layers.{{n}}.mlp.fc2.{{p}}", f"{block}.mlp.c_proj.{{p}}"),
    ]


def _table(text: str, scalars: bool = True, theirs: tuple[str, str] = ("vision_model.", "text_model.")) -> Table:
    """Return the table; our text tower's names begin with `text`; our logit scale is a scalar, as theirs is, or not.

    The names of their towers begin with `theirs`.
    """
    image, caption = theirs
    return Table(
        [
            Rule("logit_scale", "logit_scale", *(() if scalars else (SCALAR.inverse(),))),
            Rule(f"{image}embeddings.class_embedding", "visual.class_embedding"),
            Rule(f"{image}embeddings.patch_embedding.weight", "visual.conv1.weight"),
            Rule(f"{image}embeddings.position_embedding.weight", "visual.positional_embedding"),
            Rule(f"{image}pre_layrnorm.{{p}}", "visual.ln_pre.{p}"),
            *block_rules(f"{image}encoder", "visual.transformer"),
            Rule(f"{image}post_layernorm.{{p}}", "visual.ln_post.{p}"),
            Rule("visual_projection.weight", "visual.proj", TRANSPOSED),
            Rule(f"{caption}embeddings.token_embedding.weight", f"{text}token_embedding.weight"),
            Rule(f"{caption}embeddings.position_embedding.weight", f"{text}positional_embedding"),
            *block_rules(f"{caption}encoder", f"{text}transformer"),
            Rule(f"{caption}final_layer_norm.{{p}}", f"{text}ln_final.{{p}}"),
            Rule("text_projection.weight", f"{text}text_projection", TRANSPOSED),
        ],
        ignored=[f"{image}embeddings.position_ids", f"{caption}embeddings.position_ids"],
    )


def _of_entries(entries: Mapping[str, TensorInfo]) -> Table:
    """Return the table for some entries; version 5 saves towers without a projection without a prefix."""
    if _is_image(entries, ""):
        return _table("", theirs=("", "text_model."))
    return _table("", theirs=("vision_model.", "")) if _is_text(entries, "") else _table("")


def _is_image(entries: Mapping[str, TensorInfo], prefix: str) -> bool:
    """Tell the image tower by its class token and the norm before its blocks, which SigLIP has not."""
    return {f"{prefix}embeddings.class_embedding", f"{prefix}pre_layrnorm.weight"} <= entries.keys()


def _is_text(entries: Mapping[str, TensorInfo], prefix: str) -> bool:
    """Tell the text tower by its embeddings and last norm, beside no head, which SigLIP's has."""
    names = {f"{prefix}embeddings.token_embedding.weight", f"{prefix}final_layer_norm.weight"}
    return names <= entries.keys() and f"{prefix}head.weight" not in entries


def _towers(entries: Mapping[str, TensorInfo]) -> tuple[bool, bool]:
    """Tell whether there is an image tower, and a text tower."""
    image = "visual_projection.weight" in entries or any(_is_image(entries, prefix) for prefix in ("vision_model.", ""))
    return image, "text_projection.weight" in entries or any(
        _is_text(entries, prefix) for prefix in ("text_model.", "")
    )


class TransformersClip(CheckpointFormat):
    """The format of transformers' CLIP."""

    name = "transformers CLIP"
    library = "transformers"
    model_types = (WHOLE, IMAGE, TEXT)

    def __init__(self, config: TransformersClipConfig) -> None:
        pass

    def recognises(self, entries: Mapping[str, TensorInfo]) -> bool:
        """Tell by what SigLIP has not: the norm before the blocks of images, and a text tower without a head."""
        if any(_is_image(entries, prefix) for prefix in ("vision_model.", "")):
            return True
        siglip = "vision_model.head.probe" in entries or "text_model.head.weight" in entries
        return _towers(entries)[1] and not siglip and any(name.endswith(EMBEDDINGS) for name in entries)

    def plan(self, entries: Mapping[str, TensorInfo]) -> Sequence[Conversion]:
        """Return the conversions to the format of the first CLIP, without `text.`.

        A tower alone has no logit scale, and makes no logits: the model's parameter gets the usual first value.
        """
        plan: list[Conversion] = [*_of_entries(entries).plan(entries)]
        image, text = _towers(entries)
        if image is text:
            return plan
        if "logit_scale" not in entries:
            plan.append(Constant("logit_scale", ClipFile().logit_scale_init_value))
        norm = next((entries[key] for key in (f"vision_model.{NORM}", NORM) if key in entries), None)
        if image and norm is not None and len(norm.shape) == 1 and "visual_projection.weight" not in entries:
            plan.append(Identity("visual.proj", norm.shape[0], norm.dtype))
        return plan

    def ignores(self, entries: Mapping[str, TensorInfo]) -> Collection[str]:
        """Return the counted positions that old versions saved."""
        return _of_entries(entries).ignores(entries)

    def architecture(self, folder: Path) -> Mapping[str, Any] | None:
        """Return the architecture that `config.json` and `preprocessor_config.json` state.

        Of a folder with one tower, the other one is a stand-in, which no weights fill.
        """
        document = document_of(folder, self.model_types)
        if document is None:
            return None
        kind = document.data["model_type"]
        if kind == WHOLE:
            file = parsed(ClipFile, document)
            images = preprocessing(folder, file.vision_config.image_size, PROCESSOR)
            return {**_architecture(file, folder), "preprocess": images}
        if kind == IMAGE:
            vision = parsed(ClipVisionCfg, document)
            dim = vision.projection_dim if _projects(document) else vision.hidden_size
            file = ClipFile(vision_config=vision, projection_dim=dim)
            images = preprocessing(folder, vision.image_size, PROCESSOR)
            return {"description": STAND_IN["image"], **_architecture(file, folder), "preprocess": images}
        text = parsed(ClipTextCfg, document)
        projects = _projects(document)
        file = ClipFile(text_config=text, projection_dim=text.projection_dim if projects else text.hidden_size)
        architecture = _architecture(file, folder)
        tower = architecture["text"] if projects else architecture["text"] | {"proj_type": "none"}
        return {"description": STAND_IN["text"], **architecture, "text": tower, "preprocess": {"type": "image"}}

    def export(self, entries: Mapping[str, TensorInfo], config: Mapping[str, Any]) -> Sequence[Conversion]:
        """Return the conversions to `CLIPModel`; that the config has no other options is seen from `files`."""
        expect_plain(config, self.name, "vit")
        nested = any(key.startswith("text.") for key in entries)
        return _table("text." if nested else "", has_scalars(entries)).inverse().plan(entries)

    def files(self, config: Mapping[str, Any]) -> Mapping[str, bytes]:
        """Return `config.json` and `preprocessor_config.json`."""
        expect_plain(config, self.name, "vit")
        size = config["vision"]["image_size"][0]
        images = image_file(config["preprocess"], size, PROCESSOR)
        return {"config.json": as_json(_file(config)), "preprocessor_config.json": as_json(images)}


def _projects(document: Document) -> bool:
    """Tell whether the class of a tower has a projection, as it has where none is named."""
    named = document.data.get("architectures")
    return not named or "WithProjection" in str(named)


def _architecture(file: ClipFile, folder: Path) -> Json:
    text, vision = file.text_config, file.vision_config
    # where the feature is read; the largest id of all is found as such, as the first CLIP did
    at_largest = text.eos_token_id in (LEGACY_EOS, text.vocab_size - 1)
    pooling = {"pool_type": "argmax"} if at_largest else {"pool_type": "eos", "eos_id": text.eos_token_id}
    # a folder without a vocabulary may still be the first CLIP, whose vocabulary is known
    is_first = text.vocab_size == 49_408 and at_largest and not holds_vocabulary(folder)
    return {
        "model": "clip",
        "embed_dim": file.projection_dim,
        "init_logit_scale": file.logit_scale_init_value,
        "vision": {
            "tower": "vit",
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            **vision.stack(),
        },
        "text": {
            "tower": "clip-transformer",
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "heads": text.num_attention_heads,
            **text.stack(),
            **pooling,
        },
        "tokenizer": {"type": "clip-bpe"} if is_first else folder_tokenizer(folder, text.vocab_size),
    }


def _file(config: Mapping[str, Any]) -> Json:
    """Return the `config.json` that says what an architecture says, as far as it can."""
    vision, text = config["vision"], config["text"]
    dim = config["embed_dim"]
    return {
        "architectures": ["CLIPModel"],
        "model_type": WHOLE,
        "projection_dim": dim,
        "logit_scale_init_value": config["init_logit_scale"],
        "vision_config": {
            "model_type": IMAGE,
            "image_size": vision["image_size"][0],
            "patch_size": vision["patch_size"][0],
            "num_attention_heads": vision["width"] // vision["head_width"],
            "projection_dim": dim,
            **stack_file(vision),
        },
        "text_config": {
            "model_type": TEXT,
            "vocab_size": text["vocab_size"],
            "max_position_embeddings": text["context_length"],
            "num_attention_heads": text["heads"],
            "projection_dim": dim,
            **_special_tokens(config),
            **stack_file(text),
        },
    }


def _special_tokens(config: Mapping[str, Any]) -> Json:
    """Return the ids of special tokens; where the end of text is the largest id, its own if the tokenizer says so."""
    text, tokenizer = config["text"], config["tokenizer"]
    last = text["vocab_size"] - 1
    unknown = {"bos_token_id": None, "pad_token_id": None}
    if text["pool_type"] == "eos":
        return {"eos_token_id": text["eos_id"]} | unknown
    if tokenizer["type"] == "clip-bpe" and tokenizer["vocab_size"] == text["vocab_size"]:
        return {"bos_token_id": last - 1, "eos_token_id": last, "pad_token_id": last}
    return {"eos_token_id": LEGACY_EOS} | unknown


def stack_file(tower: Mapping[str, Any]) -> Json:
    """Return the keys of transformers for the blocks of a tower."""
    return {
        "hidden_size": tower["width"],
        "intermediate_size": int(tower["width"] * tower["mlp_ratio"]),
        "num_hidden_layers": tower["layers"],
        "hidden_act": {name: key for key, name in ACTIVATIONS.items()}[tower["activation"]],
        "layer_norm_eps": tower["norm_eps"],
        "attention_dropout": 0.0,
    }


def has_scalars(entries: Mapping[str, TensorInfo]) -> bool:
    """Tell whether the logit scale and bias of a model of ours are scalars, and not of shape `[1]`."""
    return "logit_scale" not in entries or not entries["logit_scale"].shape


def expect_plain(config: Mapping[str, Any], format_name: str, tower: str, images: str = "image") -> None:
    """Refuse a model of which a format has no counterpart at all.

    Raises:
        CheckpointError: the model, a tower, a rectangle or the resizing is to blame, which is named.
    """
    sides = {key: config["vision"].get(key) for key in ("image_size", "patch_size")}
    problems = [
        *_unless(config, "model", ("clip", "custom-text-clip")),
        *_unless(config["vision"], "tower", (tower,), "vision."),
        *_unless(config["text"], "tower", ("clip-transformer",), "text."),
        *_unless(config["preprocess"], "type", (images,), "preprocess."),
        *_unless(config["preprocess"], "resize_mode", ("shortest", "squash"), "preprocess."),
        *(f"vision.{key}: {size}" for key, size in sides.items() if isinstance(size, list) and len(set(size)) > 1),
    ]
    if problems:
        raise CheckpointError(f"{format_name} cannot express {'; '.join(problems)}")


def _unless(section: Mapping[str, Any], key: str, allowed: tuple[str, ...], path: str = "") -> list[str]:
    """Return what is to blame, in words; a section without the key is not."""
    if key not in section or section[key] in allowed:
        return []
    return [f"{path}{key}: {section[key]} (it has {' and '.join(allowed)})"]
