"""Architectures read from the JSON configs of open_clip.

The tables, one a section, name the keys that mean the same on both sides, open_clip's first. The functions beside them
do the rest. The values are all of those that open_clip reads, defaults included: `zoo import` leaves out what is our
default too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo_core.config import Config
from zoo_core.documents.json_reader import read_json
from zoo_core.errors import ConfigError
from zoo_formats.openclip.encoder_sizes import encoder_size, tokenizer_size
from zoo_formats.openclip.json_config import HubFile, OpenClipConfig, PreprocessCfg, VisionCfg
from zoo_formats.openclip.json_stack import StackCfg
from zoo_formats.openclip.json_text import TextCfg, vocabulary

__all__ = ["import_open_clip"]

Json = dict[str, Any]
Table = Mapping[str, str]


def _same(*keys: str) -> dict[str, str]:
    return {key: key for key in keys}


MODEL = _same("embed_dim", "init_logit_scale", "init_logit_bias", "nonscalar_logit_scale")
STACK = _same("width", "layers", "mlp_ratio", "ls_init_value")
BLOCK = _same("qk_norm", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc") | {
    "scaled_cosine_attn": "scaled_cosine"
}
VIT = _same("image_size", "patch_size") | STACK | _same("head_width", "patch_dropout") | {"pos_embed_type": "pos_embed"}
ATTENTIONAL_POOL = _same("attn_pooler_queries", "attn_pooler_heads")
RESNET = _same("image_size", "layers", "width", "head_width")
TIMM = {
    "timm_model_name": "name",
    "image_size": "image_size",
    "timm_drop_path": "drop_path",
    "patch_dropout": "patch_dropout",
}
TIMM_PROJECTION = {"timm_proj_bias": "proj_bias", "timm_drop": "drop"}
TEXT = _same("context_length", "vocab_size", "heads") | STACK | _same("proj_type")
MODERN = (
    TEXT
    | _same("norm_eps", "norm_placement", "pre_norm", "qk_norm", "attn_gated", "reg_tokens", "zero_init_residual")
    | _same("attention_bias", "mlp_bias", "pad_id")
    | {"norm_type": "norm"}
)
MODERN_MLPS = {"swiglu": "swiglu", "mlp": "gelu", "relu2": "relu2"}
DECODER = _same("width", "heads", "layers", "ls_init_value")
IMAGES = _same("mean", "std", "interpolation", "resize_mode")
EOS_ID = 2
"""Of a config that names none: that of release 3.3.0."""
POOLERS = {
    "mean_pooler": "mean",
    "max_pooler": "max",
    "cls_pooler": "cls",
    "cls_last_hidden_state_pooler": "cls-hidden",
}


def import_open_clip(path: Path) -> Json:
    """Return the architecture of an open_clip config: a file of its `model_configs`, or of a repository of the Hub.

    Raises:
        ConfigError: the file cannot be read, or has keys that are unknown, of a wrong type, or mean what zoo cannot
            express; all of them are listed, each with its line.
    """
    document = read_json(path)
    try:
        if "model_cfg" in document.data:
            file = HubFile.parse(document.data)
            return _architecture(file.model_cfg, file.preprocess_cfg)
        return _architecture(OpenClipConfig.parse(document.data), PreprocessCfg())
    except ConfigError as error:
        raise document.locate(error) from None


def _architecture(cfg: OpenClipConfig, preprocess: PreprocessCfg) -> Json:
    captioning: dict[str, Any] = {}  # what CoCa has beside its towers
    if cfg.multimodal_cfg is not None:
        activation = "quick_gelu" if cfg.quick_gelu else "gelu"
        captioning["multimodal"] = _renamed(cfg.multimodal_cfg, DECODER) | {"activation": activation}
        if cfg.text_cfg.hf_model_name or cfg.text_cfg.no_causal_mask:
            captioning["text_sees_ahead"] = True
    return {
        "model": "coca" if cfg.multimodal_cfg else "custom-text-clip" if cfg.text_is_nested else "clip",
        **_renamed(cfg, MODEL),
        **captioning,
        "vision": _vision(cfg.vision_cfg, cfg.quick_gelu),
        "text": _text(cfg.text_cfg, cfg.quick_gelu),
        "tokenizer": _tokenizer(cfg.text_cfg),
        "preprocess": _preprocess(cfg.vision_cfg, preprocess),
    }


def _vision(cfg: VisionCfg, quick_gelu: bool) -> Json:
    if cfg.kind == "timm":
        return _timm(cfg)
    if cfg.kind == "resnet":
        return {"tower": "modified-resnet"} | _renamed(cfg, RESNET)
    section = {"tower": "vit"} | _renamed(cfg, VIT) | {"ln_pre": not cfg.no_ln_pre} | _stack(cfg, quick_gelu)
    if not cfg.attentional_pool:
        return section | _renamed(cfg, _same("pool_type", "final_ln_after_pool"))
    kind = "single" if cfg.attentional_pool is True else cfg.attentional_pool
    section |= {"attentional_pool": kind} | _renamed(cfg, ATTENTIONAL_POOL)
    # `parallel` and `cascade` leave no choice of the pool_type
    return section | _renamed(cfg, _same("pool_type")) if kind == "single" else section


def _timm(cfg: VisionCfg) -> Json:
    pool = cfg.timm_pool or None
    section = {"tower": "timm", "pool": pool} | _renamed(cfg, TIMM)
    options = dict(cfg.timm_model_kwargs or {})
    if cfg.takes_patches:
        section |= {"tower": "naflex", "patch_size": _patch_size(cfg)}
        options.pop("patch_size", None)
    if options:
        section["kwargs"] = options
    if cfg.timm_proj in ("linear", "mlp"):
        return section | {"proj": cfg.timm_proj} | _renamed(cfg, TIMM_PROJECTION)
    has_head = not cfg.timm_proj and pool not in ("abs_attn", "rot_attn")
    return section | {"proj": "head" if has_head else "none"}


def _text(cfg: TextCfg, quick_gelu: bool) -> Json:
    if cfg.hf_model_name:
        return _hf_text(cfg, cfg.hf_model_name)
    if cfg.kind == "modern":
        return _modern_text(cfg)
    section = {"tower": "clip-transformer"} | _renamed(cfg, TEXT) | {"causal": not cfg.no_causal_mask}
    if cfg.proj_type == "linear":
        section |= _renamed(cfg, _same("proj_bias"))
    if cfg.embed_cls:  # the class token has the last position, whatever `pool_type` says
        section |= {"class_token": True, "pool_type": "last", "pad_id": cfg.pad_id}
    else:
        section |= _renamed(cfg, _same("pool_type"))
        if cfg.pool_type == "eos":
            section["eos_id"] = EOS_ID if cfg.eos_id is None else cfg.eos_id
    return section | _stack(cfg, quick_gelu)


def _modern_text(cfg: TextCfg) -> Json:
    """Return the modern text transformer. What another option leaves unread is left out, as our config has it."""
    pool_type = "eos" if cfg.pool_type == "argmax" else cfg.pool_type
    reads = {
        "rope_temperature": cfg.pos_embed == "rope",
        "gate_bias": cfg.attn_gated,
        "value_residual": cfg.layers > 1,
        "proj_bias": cfg.proj_type == "linear",
        "eos_id": pool_type == "eos",
    }
    return {
        "tower": "modern-transformer",
        **_renamed(cfg, MODERN | _same(*(key for key, is_read in reads.items() if is_read))),
        "causal": cfg.attention_mode == "causal",
        "pos_embed": cfg.pos_embed or "none",
        "mlp": MODERN_MLPS[cfg.mlp_type],
        "pool_type": pool_type,
    }


def _hf_text(cfg: TextCfg, name: str) -> Json:
    """Return an encoder; where a decoder takes its tokens, their width is told, which has to be known beforehand."""
    config = (cfg.hf_model_config or {}) | ({"hidden_size": cfg.width} if cfg.output_tokens else {})
    return {
        **({"config": config} if config else {}),
        **(_renamed(cfg, _same("pad_id")) if "pad_id" in cfg.model_fields_set else {}),
        "tower": "hf-text",
        "name": name,
        "context_length": cfg.context_length,
        "vocab_size": encoder_size(name, config),
        "pool_type": POOLERS[cfg.hf_pooler_type],
        "proj": cfg.hf_proj_type or "none",
    }


def _tokenizer(cfg: TextCfg) -> Json:
    options = dict(cfg.tokenizer_kwargs or {})
    cleaning = {"cleaning": options.pop("clean")} if "clean" in options else {}
    if cfg.tokenizer_type == "tiktoken":
        size = max(cfg.tiktoken_ids.values()) + 1
        return {"type": "tiktoken", "encoding": cfg.tiktoken_name, "vocab_size": size} | cleaning | options
    if not cfg.hf_tokenizer_name:
        return {"type": "clip-bpe"} | cleaning
    name = cfg.hf_tokenizer_name
    tokens = vocabulary(name)
    size = None if tokens is None else tokens.size
    if size is None and cfg.hf_model_name and "vocab_size" not in cfg.model_fields_set:
        size = tokenizer_size(name)
    size = cfg.vocab_size if size is None else size
    ids: Json = {} if tokens is None else {"pad_id": tokens.pad_id, "eos_id": tokens.eos_id}
    mode = {"mode": cfg.tokenizer_mode} if cfg.tokenizer_mode else {}
    return {"type": "hf", "name": name, "vocab_size": size} | ids | cleaning | options | mode


def _stack(cfg: StackCfg, quick_gelu: bool) -> Json:
    tanh = cfg.act_kwargs is not None and cfg.act_kwargs.approximate == "tanh"
    section: Json = {"activation": "quick_gelu" if quick_gelu else "gelu_tanh" if tanh else "gelu"}
    if cfg.norm_kwargs is not None:
        section["norm_eps"] = cfg.norm_kwargs.eps
    options = _renamed(cfg, BLOCK)
    return section | ({} if cfg.block_type == "default" else {"block": options})  # the default block has none of them


def _preprocess(vision: VisionCfg, cfg: PreprocessCfg) -> Json:
    """Return how pictures are prepared; patches leave nothing to fit into a frame, so `resize_mode` is not read."""
    if not vision.takes_patches:
        fill = {"fill": cfg.fill_color} if cfg.resize_mode == "longest" else {}
        return {"type": "image"} | _renamed(cfg, IMAGES) | fill
    shared = {"type": "naflex", "patch_size": _patch_size(vision)} | _renamed(vision, _same("image_seq_len"))
    return shared | _renamed(cfg, _same("mean", "std", "interpolation"))


def _patch_size(cfg: VisionCfg) -> Any:
    """Return the patches of a NaFlex backbone: those of all that timm has are of 16 pixels."""
    return (cfg.timm_model_kwargs or {}).get("patch_size", 16)


def _renamed(cfg: Config, table: Table) -> Json:
    """Return what a table takes over under our names; null is left out, as it stands for a default on both sides."""
    renamed: dict[str, Any] = {}
    for key, name in table.items():
        value = getattr(cfg, key)
        if isinstance(value, tuple):  # a size; YAML has one number for a square
            value = value[0] if len(set(value)) == 1 else list(value)
        if value is not None:
            renamed[name] = value
    return renamed
