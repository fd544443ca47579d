"""JSON configs of open_clip written from architectures.

The tables are those of the importer, read the other way. What open_clip cannot say is left out here. That it is missing
shows when the file is imported again, which whoever writes a folder does before it is in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo_core.errors import CheckpointError
from zoo_formats.openclip.read_config import (
    ATTENTIONAL_POOL,
    BLOCK,
    DECODER,
    IMAGES,
    MODEL,
    MODERN,
    MODERN_MLPS,
    POOLERS,
    RESNET,
    TEXT,
    TIMM,
    TIMM_PROJECTION,
    VIT,
    Json,
    Table,
)

__all__ = ["hub_file"]

CLIP_VOCABULARY = 49_408

Section = Mapping[str, Any]

COUNTERPARTS = {
    "model": ("clip", "custom-text-clip", "coca"),
    "vision.tower": ("vit", "modified-resnet", "timm", "naflex"),
    "text.tower": ("clip-transformer", "modern-transformer", "hf-text"),
    "tokenizer.type": ("clip-bpe", "hf", "tiktoken"),
    "preprocess.type": ("image", "naflex"),
}
"""The components that open_clip has a counterpart of, by the keys that name them."""


def hub_file(config: Section) -> Json:
    """Return the `open_clip_config.json` of an architecture.

    Args:
        config: the values of a model's config, defaults included.

    Raises:
        CheckpointError: open_clip would build another model of the file, or none.
    """
    _check_components(config)
    pool, width = config["vision"].get("attentional_pool"), config["vision"].get("width")
    if pool in ("parallel", "cascade") and width != config["embed_dim"]:
        # the file would be read back as the pool of another width
        raise CheckpointError(
            f"open_clip cannot express vision.attentional_pool '{pool}' of a width of {width} and embed_dim "
            f"{config['embed_dim']}: it builds that pool for a width of embed_dim only"
        )
    # one switch of open_clip is for both towers
    quick = "quick_gelu" in (config["vision"].get("activation"), config["text"].get("activation"))
    text = _text(config["text"], quick) | _tokenizer(config["tokenizer"])
    vision = _vision(config["vision"], quick) | _renamed(config["preprocess"], {"image_seq_len": "image_seq_len"})
    model = _renamed(config, MODEL) | {"vision_cfg": vision, "text_cfg": text}
    if quick:
        model["quick_gelu"] = True
    if config["model"] != "clip":
        model["custom_text"] = True
    if config["model"] == "coca":
        sizes = {key: config["text"][key] for key in ("context_length", "vocab_size")}
        model["multimodal_cfg"] = _renamed(config["multimodal"], DECODER) | sizes
        vision["output_tokens"] = text["output_tokens"] = True
    images = _renamed(config["preprocess"], IMAGES | {"fill_color": "fill"})
    return {"model_cfg": model, "preprocess_cfg": {"size": vision["image_size"], "mode": "RGB", **images}}


def _check_components(config: Section) -> None:
    """Refuse a component of another distribution, or one that open_clip lacks."""
    for key, counterparts in COUNTERPARTS.items():
        section, _, selector = key.rpartition(".")
        name = (config[section] if section else config)[selector]
        if name not in counterparts:
            raise CheckpointError(
                f"open_clip cannot express {key} '{name}': it has counterparts of {', '.join(counterparts)}"
            )


def _vision(section: Section, quick: bool) -> Json:
    if section["tower"] in ("timm", "naflex"):
        return _timm(section)
    if section["tower"] == "modified-resnet":
        return _renamed(section, RESNET) | {"patch_size": None}
    pool = section.get("attentional_pool")
    pooling = {"attentional_pool": True if pool == "single" else pool} if pool else {}
    return {
        **_renamed(section, VIT),
        **_stack(section, quick),
        "no_ln_pre": not section.get("ln_pre", True),
        **_renamed(section, {"pool_type": "pool_type", "final_ln_after_pool": "final_ln_after_pool"}),
        **(pooling | _renamed(section, ATTENTIONAL_POOL) if pool else {}),
    }


def _timm(section: Section) -> Json:
    proj = section["proj"]
    named = {"timm_proj": proj} if proj in ("linear", "mlp") else {"timm_proj": None if proj == "head" else "none"}
    options = section["kwargs"] | _renamed(section, {"patch_size": "patch_size"})
    named |= {"timm_model_kwargs": options} if options else {}
    return (
        _renamed(section, TIMM) | {"timm_pool": section.get("pool", ""), **named} | _renamed(section, TIMM_PROJECTION)
    )


def _text(section: Section, quick: bool) -> Json:
    if section["tower"] == "hf-text":
        return _hf_text(section)
    if section["tower"] == "modern-transformer":
        return _modern_text(section)
    tower = _renamed(section, TEXT) | _stack(section, quick)
    tower |= {"no_causal_mask": not section["causal"], "proj_bias": section["proj_bias"]}
    if section["class_token"]:
        return tower | {"embed_cls": True, "pad_id": section["pad_id"]}
    tower["pool_type"] = section["pool_type"]
    return tower | ({"eos_id": section["eos_id"]} if section["pool_type"] == "eos" else {})


def _modern_text(section: Section) -> Json:
    same = ("rope_temperature", "gate_bias", "value_residual", "proj_bias", "eos_id", "pool_type", "pos_embed")
    return {
        "text_arch": "modern",
        **_renamed(section, MODERN | {key: key for key in same}),
        "attention_mode": "causal" if section["causal"] else "bidirectional",
        "mlp_type": {value: key for key, value in MODERN_MLPS.items()}[section["mlp"]],
        "variable_text": True,
    }


def _hf_text(section: Section) -> Json:
    width = section["config"].get("hidden_size")
    return {
        "hf_model_name": section.get("name"),
        "context_length": section["context_length"],
        "vocab_size": section["vocab_size"],
        "hf_pooler_type": {value: key for key, value in POOLERS.items()}[section["pool_type"]],
        "hf_proj_type": None if section["proj"] == "none" else section["proj"],
        **_renamed(section, {"pad_id": "pad_id"}),
        **({"width": width} if width else {}),
    }


def _tokenizer(section: Section) -> Json:
    if section["type"] == "hf" and section["name"].startswith((".", "/", "~")):
        clip = ", or ['tokenizer.type=clip-bpe'] for that of CLIP" if section["vocab_size"] == CLIP_VOCABULARY else ""
        raise CheckpointError(
            f"open_clip names tokenizers by their repositories on the Hub, found the folder {section['name']!r}; say "
            f"which one is the same: overrides=['tokenizer.name=timm/ViT-B-16-SigLIP'] (--set){clip}"
        )
    if section["type"] == "clip-bpe" and section["vocab_size"] != CLIP_VOCABULARY:
        raise CheckpointError(
            f"open_clip has the tokenizer of CLIP with all of its {CLIP_VOCABULARY:,} ids alone, found one of "
            f"{section['vocab_size']:,}; such a model can be a folder of zoo (zoo.save, zoo pull) only"
        )
    if section["type"] == "hf" and section["cleaning"] == "none":
        raise CheckpointError(
            "open_clip cleans every caption, found tokenizer.cleaning: none; say how: "
            "overrides=['tokenizer.cleaning=canonicalize'] (--set) as it does for SigLIP, or lower or whitespace"
        )
    options = {"clean": section["cleaning"]} if "cleaning" in section else {}
    if section["type"] == "tiktoken":
        options = {} if section["cleaning"] == "none" else options
        options |= {key: section[key] for key in ("add_bos", "add_eos")}
        return {"tokenizer_type": "tiktoken", "tiktoken_name": section["encoding"], "tokenizer_kwargs": options}
    options |= {key: section[key] for key in ("strip_sep_token", "language") if section.get(key)}
    named = {"hf_tokenizer_name": section["name"]} if section["type"] == "hf" else {}
    mode = {"tokenizer_mode": section["mode"]} if section.get("mode") else {}
    return named | mode | ({"tokenizer_kwargs": options} if options else {})


def _stack(section: Section, quick: bool) -> Json:
    """Return what both native towers name alike; GELU by tanh and epsilon where they are not the usual ones."""
    tanh = section["activation"] == "gelu_tanh" and not quick
    block = section["block"]
    return {
        **({"act_kwargs": {"approximate": "tanh"}} if tanh else {}),
        **({"norm_kwargs": {"eps": section["norm_eps"]}} if section["norm_eps"] != 1e-5 else {}),
        **({key: block[option] for key, option in BLOCK.items()} if any(block.values()) else {}),
    }


def _renamed(section: Section, table: Table) -> Json:
    """Return the values of a section under open_clip's names."""
    renamed: dict[str, Any] = {}
    for key, name in table.items():
        value = section.get(name)
        if isinstance(value, list) and len(value) == 2 and value[0] == value[1] and isinstance(value[0], int):
            value = value[0]  # open_clip has one number for a square
        if value is not None:
            renamed[key] = value
    return renamed
