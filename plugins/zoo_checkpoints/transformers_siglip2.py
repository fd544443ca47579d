"""SigLIP 2 of Hugging Face transformers for pictures in their own aspect ratio: `Siglip2Model`.

The story of the table: it is SigLIP's, but for the patches, which arrive cut and flat, and for the positions, a square
table that is resampled for the grid of each picture. SigLIP 2 at one resolution is a `SiglipModel` and not this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo_checkpoints.config import TransformersSiglip2Config
from zoo_checkpoints.transformers_config import ACTIVATIONS, Json, Siglip2File, Siglip2VisionCfg, document_of, parsed
from zoo_checkpoints.transformers_images import patch_preprocessing
from zoo_checkpoints.transformers_siglip import (
    EPSILON,
    FIRST,
    TRUNK,
    Backbone,
    encoder_rules,
    text_rules,
    text_sections,
    timm_options,
)
from zoo_core.checkpoints import CheckpointFormat, Conversion, TensorInfo
from zoo_core.conversions import SCALAR, Folded, Rule, Shaped, Table
from zoo_core.errors import ConfigError

__all__ = ["TransformersSiglip2"]

PATCHES = "vision_model.embeddings.patch_embedding.weight"
POSITIONS = "vision_model.embeddings.position_embedding.weight"
BACKBONES = {
    "naflexvit_base_patch16_siglip": Backbone(256, 16, activation="gelu_tanh"),
    "naflexvit_so400m_patch16_siglip": Backbone(256, 16, 1152, 27, 16, 4304, "gelu_tanh"),
}
"""Names of timm, and what they are built as."""
GRID = 16
"""Rows and columns of their positions."""


class TransformersSiglip2(CheckpointFormat):
    """The layout of transformers' SigLIP 2 for any aspect ratio."""

    name = "transformers SigLIP 2"

    def __init__(self, config: TransformersSiglip2Config) -> None:
        pass

    def recognises(self, entries: Mapping[str, TensorInfo]) -> bool:
        """Tell by the flat patches, beside SigLIP's pooling head."""
        patches = entries.get(PATCHES)
        return "vision_model.head.probe" in entries and patches is not None and len(patches.shape) == 2

    def plan(self, entries: Mapping[str, TensorInfo]) -> Sequence[Conversion]:
        """Return the conversions to timm's NaFlexViT and a text tower below `text.`."""
        table = entries.get(POSITIONS)
        rows = math.isqrt(table.shape[0]) if table is not None and table.shape else 0
        square = Folded(0, max(rows, 1), fold=False), Shaped((None, None, None), (1, None, None, None))
        rules = [
            Rule("logit_scale", "logit_scale", SCALAR),
            Rule("logit_bias", "logit_bias", SCALAR),
            Rule("vision_model.embeddings.patch_embedding.{p}", f"{TRUNK}embeds.proj.{{p}}"),
            Rule(POSITIONS, f"{TRUNK}embeds.pos_embed", *square),
            *encoder_rules("vision_model."),
            *text_rules("text_model."),
        ]
        return Table(rules).plan(entries)

    def architecture(self, folder: Path) -> Mapping[str, Any] | None:
        """Return the architecture that `config.json` and `preprocessor_config.json` state."""
        document = document_of(folder, ("siglip2",))
        if document is None:
            return None
        file = parsed(Siglip2File, document)
        text, vision = file.text_config, file.vision_config
        if (text.projection_size or text.hidden_size) != vision.hidden_size:
            mark = document.mark(("text_config", "projection_size"))
            message = f"is not vision_config.hidden_size {vision.hidden_size}: such features cannot be compared"
            raise ConfigError(mark.problem(message, "text_config.projection_size"))
        if vision.layer_norm_eps != EPSILON:
            mark = document.mark(("vision_config", "layer_norm_eps"))
            raise ConfigError(mark.problem(f"is {EPSILON:g} in timm's backbones", "vision_config.layer_norm_eps"))
        return {
            "model": "custom-text-clip",
            "embed_dim": vision.hidden_size,
            "init_logit_scale": FIRST["logit_scale"],
            "init_logit_bias": FIRST["logit_bias"],
            "vision": _vision(vision),
            **text_sections(text, folder),
            "preprocess": patch_preprocessing(folder, vision.patch_size),
        }


def _vision(given: Siglip2VisionCfg) -> Json:
    rows = math.isqrt(given.num_patches)
    wanted = Backbone(
        rows * given.patch_size,
        given.patch_size,
        given.hidden_size,
        given.num_hidden_layers,
        given.num_attention_heads,
        given.intermediate_size,
        ACTIVATIONS[given.hidden_act],
    )
    name = min(BACKBONES, key=lambda one: BACKBONES[one].width != wanted.width)
    options = timm_options(BACKBONES[name], wanted)
    options.pop("patch_size", None)  # the tower has a key of its own for it
    if rows != GRID:
        options["pos_embed_grid_size"] = [rows, rows]
    return {
        "tower": "naflex",
        "name": name,
        "image_size": rows * given.patch_size,
        "patch_size": given.patch_size,
        "pool": "map",
        "proj": "none",
        **({"kwargs": options} if options else {}),
    }
