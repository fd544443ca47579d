"""From a JSON config of open_clip to an architecture: one table a section, theirs to ours.

The tables name the keys that mean the same on both sides; the functions beside them are what is left. The values are
all of those that open_clip reads, defaults included: `zoo import` leaves out what is our default too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo_core.config import Config
from zoo_core.documents import Document
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
        raise _placed(error, document) from None


def _placed(error: ConfigError, document: Document) -> ConfigError:
    """Give every problem the place of its key."""
    found = [document.mark(tuple(one.key.split("."))).problem(one.message, one.key) for one in error.problems]
    return ConfigError(sorted(found, key=lambda problem: (problem.line, problem.column)))


def _architecture(given: OpenClipConfig, preprocess: PreprocessCfg) -> Json:
    return {
        "model": "coca" if given.multimodal_cfg else "custom-text-clip" if given.text_is_nested else "clip",
        **_taken(given, MODEL),
        **_captioning(given),
        "vision": _vision(given.vision_cfg, given.quick_gelu),
        "text": _text(given.text_cfg, given.quick_gelu),
        "tokenizer": _tokenizer(given.text_cfg),
        "preprocess": _preprocess(given.vision_cfg, preprocess),
    }


def _captioning(given: OpenClipConfig) -> Json:
    """Return what CoCa has beside its towers."""
    if given.multimodal_cfg is None:
        return {}
    decoder = _taken(given.multimodal_cfg, DECODER)
    looks_ahead = bool(given.text_cfg.hf_model_name) or given.text_cfg.no_causal_mask
    return {
        "multimodal": decoder | {"activation": "quick_gelu" if given.quick_gelu else "gelu"},
        **({"text_sees_ahead": True} if looks_ahead else {}),
    }


def _vision(given: VisionCfg, quick_gelu: bool) -> Json:
    if given.kind == "timm":
        return _timm(given)
    if given.kind == "resnet":
        return {"tower": "modified-resnet"} | _taken(given, RESNET)
    return (
        {"tower": "vit"}
        | _taken(given, VIT)
        | {"ln_pre": not given.no_ln_pre}
        | _stack(given, quick_gelu)
        | _vit_pooling(given)
    )


def _vit_pooling(given: VisionCfg) -> Json:
    """Return how a vision transformer is pooled; `parallel` and `cascade` leave no choice of it."""
    if not given.attentional_pool:
        return _taken(given, _same("pool_type", "final_ln_after_pool"))
    taken = _taken(given, ATTENTIONAL_POOL)
    if given.attentional_pool is True:
        return {"attentional_pool": "single"} | taken | _taken(given, _same("pool_type"))
    return {"attentional_pool": given.attentional_pool} | taken


def _timm(given: VisionCfg) -> Json:
    pool = given.timm_pool or None
    section = {"tower": "timm", "pool": pool} | _taken(given, TIMM)
    options = dict(given.timm_model_kwargs or {})
    if given.takes_patches:
        section |= {"tower": "naflex", "patch_size": _patch_size(given)}
        options.pop("patch_size", None)
    if options:
        section["kwargs"] = options
    if given.timm_proj in ("linear", "mlp"):
        return section | {"proj": given.timm_proj} | _taken(given, TIMM_PROJECTION)
    has_head = not given.timm_proj and pool not in ("abs_attn", "rot_attn")
    return section | {"proj": "head" if has_head else "none"}


def _text(given: TextCfg, quick_gelu: bool) -> Json:
    if given.hf_model_name:
        return _hf_text(given, given.hf_model_name)
    if given.kind == "modern":
        return _modern_text(given)
    section = {"tower": "clip-transformer"} | _taken(given, TEXT) | {"causal": not given.no_causal_mask}
    if given.proj_type == "linear":
        section |= _taken(given, _same("proj_bias"))
    return section | _text_pooling(given) | _stack(given, quick_gelu)


def _text_pooling(given: TextCfg) -> Json:
    """Return where the feature is read; the class token has the last place, whatever `pool_type` says."""
    if given.embed_cls:
        return {"class_token": True, "pool_type": "last", "pad_id": given.pad_id}
    eos_id = EOS_ID if given.eos_id is None else given.eos_id
    return _taken(given, _same("pool_type")) | ({"eos_id": eos_id} if given.pool_type == "eos" else {})


def _modern_text(given: TextCfg) -> Json:
    """Return the modern text transformer. What another option leaves unread is left out, as our config has it."""
    pool_type = "eos" if given.pool_type == "argmax" else given.pool_type
    reads = {
        "rope_temperature": given.pos_embed == "rope",
        "gate_bias": given.attn_gated,
        "value_residual": given.layers > 1,
        "proj_bias": given.proj_type == "linear",
        "eos_id": pool_type == "eos",
    }
    return {
        "tower": "modern-transformer",
        **_taken(given, MODERN | _same(*(key for key, is_read in reads.items() if is_read))),
        "causal": given.attention_mode == "causal",
        "pos_embed": given.pos_embed or "none",
        "mlp": MODERN_MLPS[given.mlp_type],
        "pool_type": pool_type,
    }


def _hf_text(given: TextCfg, name: str) -> Json:
    """Return an encoder; where a decoder takes its tokens, their width is told, which has to be known beforehand."""
    config = (given.hf_model_config or {}) | ({"hidden_size": given.width} if given.output_tokens else {})
    return {
        **({"config": config} if config else {}),
        **(_taken(given, _same("pad_id")) if "pad_id" in given.model_fields_set else {}),
        "tower": "hf-text",
        "name": name,
        "context_length": given.context_length,
        "vocab_size": encoder_size(name, config),
        "pool_type": POOLERS[given.hf_pooler_type],
        "proj": given.hf_proj_type or "none",
    }


def _tokenizer(given: TextCfg) -> Json:
    options = dict(given.tokenizer_kwargs or {})
    cleaning = {"cleaning": options.pop("clean")} if "clean" in options else {}
    if given.tokenizer_type == "tiktoken":
        size = max(given.tiktoken_ids.values()) + 1
        return {"type": "tiktoken", "encoding": given.tiktoken_name, "vocab_size": size} | cleaning | options
    if not given.hf_tokenizer_name:
        return {"type": "clip-bpe"} | cleaning
    name = given.hf_tokenizer_name
    known = vocabulary(name)
    size = None if known is None else known.size
    if size is None and given.hf_model_name and "vocab_size" not in given.model_fields_set:
        size = tokenizer_size(name)
    size = given.vocab_size if size is None else size
    ids: Json = {} if known is None else {"pad_id": known.pad_id, "eos_id": known.eos_id}
    mode = {"mode": given.tokenizer_mode} if given.tokenizer_mode else {}
    return {"type": "hf", "name": name, "vocab_size": size} | ids | cleaning | options | mode


def _stack(given: StackCfg, quick_gelu: bool) -> Json:
    tanh = given.act_kwargs is not None and given.act_kwargs.approximate == "tanh"
    section: Json = {"activation": "quick_gelu" if quick_gelu else "gelu_tanh" if tanh else "gelu"}
    if given.norm_kwargs is not None:
        section["norm_eps"] = given.norm_kwargs.eps
    options = _taken(given, BLOCK)
    return section | ({} if given.block_type == "default" else {"block": options})  # the default block has none of them


def _preprocess(vision: VisionCfg, given: PreprocessCfg) -> Json:
    """Return how pictures are prepared; patches leave nothing to fit into a frame, so `resize_mode` is not read."""
    if not vision.takes_patches:
        return {"type": "image"} | _taken(given, IMAGES) | _fill(given)
    shared = {"type": "naflex", "patch_size": _patch_size(vision)} | _taken(vision, _same("image_seq_len"))
    return shared | _taken(given, _same("mean", "std", "interpolation"))


def _patch_size(given: VisionCfg) -> Any:
    """Return the patches of a NaFlex backbone: those of all that timm has are of 16 pixels."""
    return (given.timm_model_kwargs or {}).get("patch_size", 16)


def _fill(given: PreprocessCfg) -> Json:
    return {"fill": given.fill_color} if given.resize_mode == "longest" else {}


def _taken(given: Config, table: Table) -> Json:
    """Return what a table takes over under our names; null is left out, as it stands for a default on both sides."""
    values = {ours: getattr(given, theirs) for theirs, ours in table.items()}
    return {key: _plain(value) for key, value in values.items() if value is not None}


def _plain(value: Any) -> Any:
    """Return a size as it is written in YAML: one number for a square."""
    if isinstance(value, tuple):
        return value[0] if len(set(value)) == 1 else list(value)
    return value
