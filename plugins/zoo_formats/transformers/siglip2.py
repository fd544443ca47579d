"""SigLIP 2 of Hugging Face transformers for any aspect ratio.

It is `Siglip2Model`; SigLIP 2 at one resolution is a `SiglipModel` and not this. The story of the table: it is that of
SigLIP but for the patches, which arrive cut and flat, and for the positions, a square table that is resampled for the
grid of each image. No file tells the size of images that are a tensor. They are the square of as many patches as an
image may have, as in open_clip's configs; where these make no square, the square of the positions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo_core.checkpoints import CheckpointFormat, Conversion, TensorInfo
from zoo_core.checkpoints.rules import Rule, Table
from zoo_core.checkpoints.tensor_steps import MergeAxes, Reshape
from zoo_core.errors import CheckpointError, ConfigError
from zoo_formats.config import TransformersSiglip2Config
from zoo_formats.transformers.clip import expect_plain, has_scalars
from zoo_formats.transformers.image_processor import patch_image_file, patch_preprocessing
from zoo_formats.transformers.model_config import (
    ACTIVATIONS,
    Json,
    Siglip2File,
    Siglip2VisionCfg,
    as_json,
    document_of,
    parsed,
)
from zoo_formats.transformers.siglip import (
    FIRST,
    TRUNK,
    encoder_rules,
    expect_logit_bias,
    logit_rules,
    text_file,
    text_rules,
    text_sections,
)
from zoo_formats.transformers.siglip_backbones import EPSILON, Backbone, backbone_file, timm_options

__all__ = ["TransformersSiglip2"]

WHOLE, IMAGE, TEXT = "siglip2", "siglip2_vision_model", "siglip2_text_model"
PATCHES = "vision_model.embeddings.patch_embedding.weight"
POSITIONS = "vision_model.embeddings.position_embedding.weight"
OUR_POSITIONS = f"{TRUNK}embeds.pos_embed"
BACKBONES = {
    "naflexvit_base_patch16_siglip": Backbone(256, 16, activation="gelu_tanh"),
    "naflexvit_so400m_patch16_siglip": Backbone(256, 16, 1152, 27, 16, 4304, "gelu_tanh"),
}
"""Names of timm, and what they are built as."""
GRID = 16
"""Rows and columns of their positions."""


def _table(columns: int, scalars: bool = True) -> Table:
    """Return the table; the positions have so many columns."""
    square = MergeAxes(0, columns, fold=False), Reshape((None, None, None), (1, None, None, None))
    return Table(
        [
            *logit_rules(scalars),
            Rule("vision_model.embeddings.patch_embedding.{p}", f"{TRUNK}embeds.proj.{{p}}"),
            Rule(POSITIONS, OUR_POSITIONS, *square),
            *encoder_rules("vision_model."),
            *text_rules("text_model."),
        ]
    )


class TransformersSiglip2(CheckpointFormat):
    """The format of transformers' SigLIP 2 for any aspect ratio."""

    name = "transformers SigLIP 2"
    library = "transformers"
    model_types = (WHOLE,)

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
        return _table(max(rows, 1)).plan(entries)

    def architecture(self, folder: Path) -> Mapping[str, Any] | None:
        """Return the architecture that `config.json` and `preprocessor_config.json` state."""
        document = document_of(folder, self.model_types)
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
        images = patch_preprocessing(folder, vision.patch_size)
        return {
            "model": "custom-text-clip",
            "embed_dim": vision.hidden_size,
            "init_logit_scale": FIRST["logit_scale"],
            "init_logit_bias": FIRST["logit_bias"],
            "vision": _vision(vision, images["image_seq_len"]),
            **text_sections(text, folder),
            "preprocess": images,
        }

    def export(self, entries: Mapping[str, TensorInfo], config: Mapping[str, Any]) -> Sequence[Conversion]:
        """Return the conversions to `Siglip2Model`."""
        expect_plain(config, self.name, "naflex", "naflex")
        expect_logit_bias(entries, self.name)
        table = entries.get(OUR_POSITIONS)
        columns = table.shape[2] if table is not None else 1
        return _table(columns, has_scalars(entries)).inverse().plan(entries)

    def files(self, config: Mapping[str, Any]) -> Mapping[str, bytes]:
        """Return `config.json` and `preprocessor_config.json`."""
        expect_plain(config, self.name, "naflex", "naflex")
        (height, width), (rows, columns) = (config["vision"][key] for key in ("image_size", "patch_size"))
        patches = config["preprocess"].get("image_seq_len") or (height // rows) * (width // columns)
        images = patch_image_file(config["preprocess"], patches)
        vision = config["vision"]
        options = dict(vision.get("kwargs", {}))
        grid = options.pop("pos_embed_grid_size", [GRID, GRID])
        if not isinstance(grid, list) or len(grid) != 2 or grid[0] != grid[1]:
            raise CheckpointError(
                f"{self.name} cannot express vision.kwargs.pos_embed_grid_size: {grid} (its positions are a square)"
            )
        backbone = backbone_file(self.name, BACKBONES, vision["name"], options)
        sizes = {"patch_size": vision["patch_size"][0], "num_patches": grid[0] * grid[1]}
        file = {
            "architectures": ["Siglip2Model"],
            "model_type": WHOLE,
            "vision_config": {"model_type": IMAGE, **backbone, **sizes},
            "text_config": {"model_type": TEXT, **text_file(config)},
        }
        return {"config.json": as_json(file), "preprocessor_config.json": as_json(images)}


def _vision(cfg: Siglip2VisionCfg, patches: int) -> Json:
    rows, side = math.isqrt(cfg.num_patches), math.isqrt(patches)
    backbone = Backbone(
        rows * cfg.patch_size,
        cfg.patch_size,
        cfg.hidden_size,
        cfg.num_hidden_layers,
        cfg.num_attention_heads,
        cfg.intermediate_size,
        ACTIVATIONS[cfg.hidden_act],
    )
    name = min(BACKBONES, key=lambda name: BACKBONES[name].width != backbone.width)
    options = timm_options(BACKBONES[name], backbone)
    options.pop("patch_size", None)  # the tower has a key of its own for it
    if rows != GRID:
        options["pos_embed_grid_size"] = [rows, rows]
    return {
        "tower": "naflex",
        "name": name,
        "image_size": (side if side * side == patches else rows) * cfg.patch_size,
        "patch_size": cfg.patch_size,
        "pool": "map",
        "proj": "none",
        **({"kwargs": options} if options else {}),
    }
