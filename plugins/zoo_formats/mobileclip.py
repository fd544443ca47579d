"""MobileCLIP as Apple published it.

S1 and S2 stand on a FastViT, B on a vision transformer with a stem of convolutions. The first S0 is recognized by its
text tower, which mixes tokens by convolutions; nobody but Apple's own code builds that one.

The story of the tables: Apple's training code names blocks by their index in a list (`pre_norm_ffn.4`), and FastViT's
stages, the steps between them and their positions stand in one row, `network.0`, `network.1`, ..., where timm has a
list of stages. A projection without a bias became a classifier with one, which is zero.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from zoo_core.checkpoints import CheckpointFormat, Conversion, TensorInfo
from zoo_core.checkpoints.rules import BoundRule, Rule, Table
from zoo_core.checkpoints.tensor_steps import Reshape
from zoo_core.errors import CheckpointError
from zoo_formats.config import MobileClipConfig

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MobileClip"]

IMAGE = "image_encoder.model."
TRUNK = "visual.trunk."
FASTVIT_STEM = f"{IMAGE}patch_embed.0.rbr_conv.0.conv.weight"
CONVOLUTIONAL_TEXT = "text_encoder.transformer.0.token_mixer."
HYBRID_STEM = f"{IMAGE}patch_emb.0.block.conv.weight"

SEGMENTS = {
    "patch_embed": "stem",
    "rbr_conv": "conv_kxk",
    "rbr_scale": "conv_scale",
    "rbr_skip": "identity",
    "conv_exp": "final_conv",
    "lkb_origin": "large_conv",
    "convffn": "mlp",
    "reduce": "fc1",
    "expand": "fc2",
    "layer_scale": "layer_scale.gamma",
    "layer_scale_1": "layer_scale_1.gamma",
    "layer_scale_2": "layer_scale_2.gamma",
}
"""Parts of FastViT's names between dots, in Apple's code and in timm."""
STAGES = {"proj": "downsample.proj", "pe": "pos_emb.pos_enc"}
"""What stands in FastViT's row beside the stages themselves."""

NESTED = Reshape((1, 1, None, None), (None, None))
"""Positions `[1, 1, L, C]`."""


def _blocks(theirs: str, ours: str, norms: tuple[str, str], qkv: str, out: str, mlp: tuple[str, str]) -> list[Rule]:
    block = f"{theirs}transformer.{{n}}."
    return [
        Rule(f"{block}pre_norm_mha.0.{{p}}", f"{ours}.{{n}}.{norms[0]}.{{p}}"),
        Rule(f"{block}pre_norm_mha.1.qkv_proj.{{p}}", f"{ours}.{{n}}.{qkv}{{p}}"),
        Rule(f"{block}pre_norm_mha.1.out_proj.{{p}}", f"{ours}.{{n}}.{out}.{{p}}"),
        Rule(f"{block}pre_norm_ffn.0.{{p}}", f"{ours}.{{n}}.{norms[1]}.{{p}}"),
        Rule(f"{block}pre_norm_ffn.1.{{p}}", f"{ours}.{{n}}.{mlp[0]}.{{p}}"),
        Rule(f"{block}pre_norm_ffn.4.{{p}}", f"{ours}.{{n}}.{mlp[1]}.{{p}}"),
    ]


TEXT = [
    Rule("logit_scale", "logit_scale"),
    Rule("text_encoder.embedding_layer.weight", "text.token_embedding.weight"),
    Rule("text_encoder.positional_embedding.pos_embed.pos_embed", "text.positional_embedding", NESTED),
    Rule("text_encoder.final_layer_norm.{p}", "text.ln_final.{p}"),
    Rule("text_encoder.projection_layer", "text.text_projection"),
    *_blocks(
        "text_encoder.",
        "text.transformer.resblocks",
        ("ln_1", "ln_2"),
        "attn.in_proj_",
        "attn.out_proj",
        ("mlp.c_fc", "mlp.c_proj"),
    ),
]
HYBRID = [
    Rule(f"{IMAGE}cls_token", f"{TRUNK}cls_token"),
    Rule(f"{IMAGE}pos_embed.pos_embed.pos_embed", f"{TRUNK}pos_embed", Reshape((1, 1, None, None), (1, None, None))),
    Rule(f"{IMAGE}patch_emb.{{n}}.block.conv.{{p}}", f"{TRUNK}patch_embed.backbone.{{n}}.conv.{{p}}"),
    Rule(f"{IMAGE}patch_emb.{{n}}.block.norm.{{p}}", f"{TRUNK}patch_embed.backbone.{{n}}.bn.{{p}}"),
    Rule(f"{IMAGE}post_transformer_norm.{{p}}", f"{TRUNK}norm.{{p}}"),
    *_blocks(IMAGE, f"{TRUNK}blocks", ("norm1", "norm2"), "attn.qkv.", "attn.proj", ("mlp.fc1", "mlp.fc2")),
]


class MobileClip(CheckpointFormat):
    """The format of Apple's files."""

    name = "Apple MobileCLIP"

    def __init__(self, config: MobileClipConfig) -> None:
        pass

    def recognises(self, entries: Mapping[str, TensorInfo]) -> bool:
        """Tell by the stem of either image tower."""
        return FASTVIT_STEM in entries or HYBRID_STEM in entries

    def plan(self, entries: Mapping[str, TensorInfo]) -> Sequence[Conversion]:
        """Return the conversions to timm's FastViT or hybrid transformer, and a text tower below `text.`.

        Raises:
            CheckpointError: the text tower is that of the first S0.
        """
        if any(key.startswith(CONVOLUTIONAL_TEXT) for key in entries):
            raise CheckpointError(
                f"these are weights of the first MobileCLIP S0, whose text tower mixes tokens by convolutions "
                f"({CONVOLUTIONAL_TEXT}...): there is no such tower; 'mobileclip2-s0' has the same image tower and a "
                "plain text tower, and weights of its own"
            )
        if FASTVIT_STEM in entries:
            return [*Table(TEXT).plan(entries), *_fastvit(entries), *_classifier("head.proj", "head.fc", entries)]
        return [*Table([*TEXT, *HYBRID]).plan(entries), *_classifier("classifier.proj", "head", entries)]


def _fastvit(entries: Iterable[str]) -> Iterator[Conversion]:
    """Yield the renaming of FastViT's entries but for the projection."""
    names = [
        key.removeprefix(IMAGE).split(".") for key in entries if key.startswith(IMAGE) and key != f"{IMAGE}head.proj"
    ]
    steps = sorted({int(name[1]) for name in names if _in_row(name) and name[2] == "proj"})
    for name in names:
        renamed = [SEGMENTS.get(part, part) for part in name]
        if _in_row(name):
            stage = bisect.bisect_right(steps, int(name[1]))
            renamed = [f"stages.{stage}", STAGES.get(name[2], f"blocks.{name[2]}"), *renamed[3:]]
        yield BoundRule(SAME, (IMAGE + ".".join(name),), (TRUNK + ".".join(renamed),))


SAME = Rule("{...}", "{...}")


def _in_row(name: Sequence[str]) -> bool:
    return len(name) > 2 and name[0] == "network" and name[1].isdecimal()


def _classifier(theirs: str, ours: str, entries: Iterable[str]) -> Iterator[Conversion]:
    source = f"{IMAGE}{theirs}"
    if source in entries:
        yield ProjectionAsClassifier((source,), (f"{TRUNK}{ours}.weight", f"{TRUNK}{ours}.bias"))


@dataclass(frozen=True)
class ProjectionAsClassifier:
    """From a projection `[in, out]` to a classifier's weight `[out, in]` and a bias of zeros; or back."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]

    def infer(self, infos: Sequence[TensorInfo]) -> Sequence[TensorInfo]:
        """Return weight and bias of a matrix."""
        (projection,) = infos
        shape = projection.shape
        if len(shape) != 2:
            raise CheckpointError(f"{self.sources[0]} is no projection: expected 2 axes, found {list(shape)}")
        return replace(projection, shape=shape[::-1]), replace(projection, shape=shape[1:])

    def apply(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the transposed projection, and zeros."""
        (projection,) = tensors
        return projection.T, projection.new_zeros(projection.shape[1])

    def inverse(self) -> Conversion:
        """Refuse: a bias that has been trained would be lost."""
        raise CheckpointError("nothing can be written in the format of Apple MobileCLIP")
