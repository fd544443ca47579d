"""Encoders of transformers with random weights."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from zoo_core.boundary.library_code import library_code
from zoo_hf.encoder_config import refuse

__all__ = ["build_encoder", "layers_of", "positions_of"]

DECODER_LAYERS = ("decoder_layers", "num_decoder_layers")


def build_encoder(config: Any, *, with_pooler: bool) -> nn.Module:
    """Build an encoder from its config; of a model with two halves, the encoder half.

    Args:
        config: a config of transformers.
        with_pooler: keep the encoder's own pooler over the first token, where its class has one.

    Raises:
        ConfigError: transformers cannot build it.
    """
    from transformers import AutoModel
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    model_class: Any = MODEL_MAPPING.get(type(config), None)
    if model_class is None:
        raise refuse("config.model_type", f"transformers has no plain model of type '{config.model_type}'")
    options: dict[str, Any] = {}
    if not isinstance(model_class, tuple) and "add_pooling_layer" in inspect.signature(model_class.__init__).parameters:
        options["add_pooling_layer"] = with_pooler
    for key in (*DECODER_LAYERS, "use_cache"):  # of the half that is not used, no layer need be built
        if hasattr(config, key):
            setattr(config, key, 0 if key in DECODER_LAYERS else False)
    with library_code(
        lambda cause: refuse("config", f"transformers cannot build a {config.model_type} of it: {cause}")
    ):
        model = AutoModel.from_config(config, dtype=torch.get_default_dtype(), **options)
        return model.get_encoder() if config.is_encoder_decoder else model


def layers_of(encoder: Any) -> tuple[nn.Module, nn.ModuleList]:
    """Return the module that holds the stack of an encoder's layers, and the stack.

    Raises:
        ConfigError: the encoder has no such stack.
    """
    for parent in encoder.modules():
        for stack in parent.children():
            if isinstance(stack, nn.ModuleList) and len(stack) == encoder.config.num_hidden_layers:
                return parent, stack
    raise refuse(
        "config.model_type", f"'{encoder.config.model_type}' is no stack of layers, which a text tower has to be"
    )


def positions_of(encoder: nn.Module, config: Any) -> int | None:
    """Return how many tokens fit a row; None where there is no limit.

    RoBERTa and its kin count positions from the padding id up, so the first rows of their table are never used.
    """
    for name, module in encoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return getattr(config, "max_position_embeddings", None)
