"""The backbones of SigLIP, by the names that timm has for them.

Sizes that no name has are options of a backbone that has one. The keys are those of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zoo_core.errors import CheckpointError
from zoo_formats.transformers.model_config import ACTIVATIONS, Json, ratio

__all__ = ["EPSILON", "Backbone", "backbone_file", "timm_options"]

OPTIONS = {"patch_size": "patch_size", "embed_dim": "width", "depth": "layers", "num_heads": "heads"}
"""timm's options of a backbone, and ours here."""
EPSILON = 1e-6
"""Of all norms of these backbones in timm."""


@dataclass(frozen=True)
class Backbone:
    """A vision transformer of SigLIP, as timm builds it by one of its names."""

    image_size: int
    patch_size: int
    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    activation: str = "gelu"


def timm_options(base: Backbone, target: Backbone) -> Json:
    """Return timm's options that make one backbone of another."""
    options = {
        key: getattr(target, size) for key, size in OPTIONS.items() if getattr(base, size) != getattr(target, size)
    }
    if base.hidden / base.width != target.hidden / target.width:
        options["mlp_ratio"] = ratio(target.width, target.hidden)
    return options | ({"act_layer": target.activation} if base.activation != target.activation else {})


def backbone_file(format_name: str, backbones: Mapping[str, Backbone], name: str, options: Mapping[str, Any]) -> Json:
    """Return the keys of transformers for a backbone of timm, but for its images and positions.

    Raises:
        CheckpointError: it is none of `backbones`, or has an option that transformers has not; it is named.
    """
    base = backbones.get(name)
    if base is None:
        raise CheckpointError(f"{format_name} cannot express vision.name: {name} (it has {', '.join(backbones)})")
    allowed = [*OPTIONS, "mlp_ratio", "act_layer"]
    unknown = sorted(options.keys() - set(allowed))
    if unknown:
        raise CheckpointError(f"{format_name} cannot express vision.kwargs.{unknown[0]} (it has {', '.join(allowed)})")
    activation = options.get("act_layer", base.activation)
    hidden_act = next((key for key, name in ACTIVATIONS.items() if name == activation), None)
    if hidden_act is None:
        what = f"{activation} (it has {', '.join(ACTIVATIONS.values())})"
        raise CheckpointError(f"{format_name} cannot express vision.kwargs.act_layer: {what}")
    sizes = {size: options.get(key, getattr(base, size)) for key, size in OPTIONS.items()}
    return {
        "patch_size": sizes["patch_size"],
        "hidden_size": sizes["width"],
        "intermediate_size": int(sizes["width"] * options.get("mlp_ratio", ratio(base.width, base.hidden))),
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["heads"],
        "hidden_act": hidden_act,
        "layer_norm_eps": EPSILON,
        "attention_dropout": 0.0,
        "vision_use_head": True,
    }
