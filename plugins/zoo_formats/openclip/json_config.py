"""The JSON config of open_clip as strict data.

A key that open_clip itself does not read is accepted and has no effect, such as the `width` of a vision tower that
names a timm backbone. The first values of weights are no part of an architecture either. The text tower's keys are in
`json_text`, those of the development branch among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from zoo_core.config import CheckpointFormatConfig, Config, Size
from zoo_formats.openclip.json_stack import StackCfg
from zoo_formats.openclip.json_text import TextCfg

__all__ = [
    "HubFile",
    "MultimodalCfg",
    "OpenClipConfig",
    "OpenClipFormatConfig",
    "PreprocessCfg",
    "VisionCfg",
]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _layers(value: object) -> object:
    if _is_count(value) or (isinstance(value, list) and len(value) == 4 and all(map(_is_count, value))):
        return value
    raise PydanticCustomError("layers", "expected a whole number, or four of a residual network such as [3, 4, 6, 3]")


class VisionCfg(StackCfg):
    """A vision transformer, a residual network where `layers` is a list, or a timm backbone where one is named."""

    layers: Annotated[Any, BeforeValidator(_layers)] = 12
    width: int = 768
    head_width: int = 64
    patch_size: Size | None = (16, 16)
    image_size: Size = (224, 224)
    patch_dropout: float = 0.0
    attentional_pool: Literal[False, True, "parallel", "cascade"] = False
    attn_pooler_queries: int = 256
    attn_pooler_heads: int = 8
    no_ln_pre: bool = False
    pos_embed_type: Literal["learnable", "sin_cos_2d"] = "learnable"
    final_ln_after_pool: bool = False
    pool_type: Literal["tok", "avg"] = "tok"
    timm_model_name: str | None = None
    timm_model_pretrained: bool = False
    timm_pool: Literal["", "avg", "max", "avgmax", "catavgmax", "token", "map", "abs_attn", "rot_attn"] = "avg"
    timm_proj: Literal["", "linear", "mlp", "none"] | None = "linear"
    timm_proj_bias: bool = False
    timm_drop: float = 0.0
    timm_drop_path: float | None = None
    timm_model_kwargs: dict[str, Any] | None = None
    image_seq_len: Annotated[int, Field(ge=1)] | None = None

    @property
    def takes_patches(self) -> bool:
        """Whether this is a NaFlex backbone."""
        return (self.timm_model_name or "").startswith("naflexvit")

    @property
    def kind(self) -> Literal["timm", "resnet", "vit"]:
        """Which tower this is."""
        if self.timm_model_name:
            return "timm"
        return "resnet" if isinstance(self.layers, list) else "vit"

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold each tower to what it needs."""
        yield from super().rules()
        if self.kind == "vit" and self.patch_size is None:
            yield "patch_size", "a vision transformer needs one"
        if self.kind == "timm" and self.timm_pool == "" and self.timm_proj not in ("linear", "mlp"):
            yield "timm_pool", "an output map that is neither pooled nor projected is no feature; name a pool"
        if self.image_seq_len is not None and not self.takes_patches:
            yield "image_seq_len", "only a NaFlex backbone takes pictures of so many patches; leave it out"


class MultimodalCfg(Config):
    """CoCa's text decoder. What open_clip does not read of it is accepted where it says nothing of its shape."""

    context_length: int = 77
    width: int = 512
    heads: int = 8
    layers: int = 12
    ls_init_value: float | None = None
    mlp_ratio: float = 4.0
    vocab_size: int = 49_408
    dim_head: int = 64
    n_queries: int = 256
    attn_pooler_heads: int = 8

    def rules(self) -> Iterator[tuple[str, str]]:
        """Refuse a shape that open_clip would not build."""
        yield from super().rules()
        if self.mlp_ratio != 4:
            yield "mlp_ratio", f"open_clip does not read it, and builds a decoder of 4; found {self.mlp_ratio:g}"


class OpenClipConfig(Config):
    """A file of open_clip's `model_configs`."""

    embed_dim: Annotated[int, Field(ge=1)]
    vision_cfg: VisionCfg
    text_cfg: TextCfg
    multimodal_cfg: MultimodalCfg | None = None
    quick_gelu: bool = False
    custom_text: bool = False
    init_logit_scale: float | None = None
    init_logit_bias: float | None = None
    nonscalar_logit_scale: bool = False

    @property
    def text_is_nested(self) -> bool:
        """Whether the model is a CustomTextCLIP."""
        return self.custom_text or self.text_cfg.kind != "clip" or self.text_cfg.variable_text

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold both activations together, and a class token to the model that reads it."""
        yield from super().rules()
        towers = (("vision_cfg", self.vision_cfg, self.vision_cfg.kind == "vit"),)
        for section, tower, is_native in (*towers, ("text_cfg", self.text_cfg, self.text_cfg.kind == "clip")):
            if self.quick_gelu and is_native and tower.act_kwargs is not None:
                yield f"{section}.act_kwargs", "are options of GELU, and quick_gelu replaces it; leave one out"
        # the decoder takes the tokens that towers give beside the feature
        decoder = self.multimodal_cfg
        for section, tower in (("vision_cfg", self.vision_cfg), ("text_cfg", self.text_cfg)):
            if tower.output_tokens and decoder is None:
                yield f"{section}.output_tokens", "only CoCa's towers give tokens beside the feature; leave it out"
            if decoder is not None and not tower.output_tokens:
                yield f"{section}.output_tokens", "CoCa's decoder needs the tokens; set it to true"
        if decoder is not None:
            if self.text_cfg.kind == "modern":
                yield "text_cfg.text_arch", "open_clip builds no decoder over 'modern'; leave multimodal_cfg out"
            if not self.text_is_nested:
                yield "custom_text", "open_clip builds a decoder only with custom_text: true"
            if decoder.context_length < self.text_cfg.context_length - 1:
                yield (
                    "multimodal_cfg.context_length",
                    f"{decoder.context_length} is too short for captions of {self.text_cfg.context_length} tokens",
                )
        if self.text_cfg.embed_cls and not self.text_is_nested:
            yield "text_cfg.embed_cls", "open_clip's CLIP leaves the class token out; set custom_text: true"


class PreprocessCfg(Config):
    """How images become tensors, in a file of the Hub."""

    size: Size | None = None
    mode: Literal["RGB"] = "RGB"
    mean: list[float] | None = None
    std: list[float] | None = None
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    fill_color: int = 0


class OpenClipFormatConfig(CheckpointFormatConfig):
    """Folders of open_clip."""

    type: str = "open-clip"
    """Name of the checkpoint format component."""


class HubFile(Config):
    """An `open_clip_config.json` of the Hub: a model and its preprocessing."""

    model_cfg: OpenClipConfig
    preprocess_cfg: PreprocessCfg = PreprocessCfg()

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold both sizes together."""
        yield from super().rules()
        size = self.preprocess_cfg.size
        if size is not None and size != self.model_cfg.vision_cfg.image_size:
            yield "preprocess_cfg.size", f"{list(size)} is not the image_size of vision_cfg"
