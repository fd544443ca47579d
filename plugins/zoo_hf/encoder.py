"""From the config of a text tower to an encoder of transformers, with random weights.

What you would not guess: transformers takes any key in a config and ignores those that mean nothing. Here the keys
that an architecture writes are held to the fields of the model's config class. Keys in a published `config.json` are
not: these files have carried leftovers for years.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import nn

from zoo_core.boundary.library_code import library_code
from zoo_core.documents import ENCODER_CONFIG
from zoo_core.documents.json_reader import read_json
from zoo_core.errors import ConfigError, Problem, did_you_mean, reason
from zoo_hf.config import HfTextConfig
from zoo_hf.hub import files_of

__all__ = ["build_encoder", "encoder_config", "layers_of", "positions_of", "written_out"]

MOST_LAYERS, LARGEST = 4_096, 100_000_000
"""The largest numbers in a config: of layers, heads and the like, and of anything else."""
DECODER_LAYERS = ("decoder_layers", "num_decoder_layers")


def encoder_config(config: HfTextConfig) -> Any:
    """Return the config of transformers that a text tower stands for.

    Raises:
        ConfigError: no such model type, a key that it does not have or a value that it refuses, no padding token, or
            another vocabulary than the tower's.
    """
    published = _published(config)
    model_type: Any = published.get("model_type", config.config.get("model_type"))
    config_class = _config_class(model_type)
    problems = list(_key_problems(config, config_class, model_type))
    if problems:
        raise ConfigError(problems)
    published = _by_own_names(published, config_class)
    own = _by_own_names(config.config, config_class)
    if config.name is None:
        own["vocab_size"] = config.vocab_size
    if config.pad_id is not None:
        own["pad_token_id"] = config.pad_id
    published.pop("auto_map", None)  # code that comes with a repository is never run
    problems = list(_size_problems({**published, **own}))
    if problems:
        raise ConfigError(problems)
    with library_code(lambda told: _wrong("config", f"{model_type}: {told}")):
        found = config_class.from_dict({**published, **own})
    if found.vocab_size != config.vocab_size:
        raise _wrong(
            "vocab_size",
            f"the encoder '{config.name}' has {found.vocab_size} token embeddings, not {config.vocab_size}; "
            f"set vocab_size: {found.vocab_size}",
        )
    if found.pad_token_id is None:
        raise _wrong("pad_id", f"the config of {model_type} names no padding token; set pad_id")
    return found


def written_out(config: HfTextConfig) -> dict[str, Any]:
    """Return all that the encoder's config says beyond the defaults of its class, under its own names.

    Raises:
        ConfigError: as `encoder_config`.
    """
    found = encoder_config(config)
    known = {field.name for field in fields(type(found))} - {"vocab_size", "dtype", "architectures"}
    own = {key: value for key, value in found.to_diff_dict().items() if key in known}
    return own | {"model_type": found.model_type}


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
        raise _wrong("config.model_type", f"transformers has no plain model of type '{config.model_type}'")
    options: dict[str, Any] = {}
    if not isinstance(model_class, tuple) and "add_pooling_layer" in inspect.signature(model_class.__init__).parameters:
        options["add_pooling_layer"] = with_pooler
    for key in (*DECODER_LAYERS, "use_cache"):  # of the half that is not used, no layer need be built
        if hasattr(config, key):
            setattr(config, key, 0 if key in DECODER_LAYERS else False)
    with library_code(lambda told: _wrong("config", f"transformers cannot build a {config.model_type} of it: {told}")):
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
    raise _wrong(
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


def _published(config: HfTextConfig) -> dict[str, Any]:
    if config.name is None:
        return {}
    path = files_of(config, ("config.json",), "text") / "config.json"
    try:
        return read_json(path, ENCODER_CONFIG).data
    except ConfigError as error:
        raise _wrong("name", f"'{config.name}': {reason(error)}") from None


def _config_class(model_type: Any) -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        near = did_you_mean(str(model_type), CONFIG_MAPPING.keys())
        raise _wrong("config.model_type", f"transformers knows no model type '{model_type}'{near}")
    return CONFIG_MAPPING[model_type]


def _by_own_names(data: Mapping[str, Any], config_class: Any) -> dict[str, Any]:
    """Return a config without the second names that keys have, such as `num_hidden_layers` for `encoder_layers`.

    Published files hold both, and transformers would let the second one win over a change of the first.
    """
    aliases: Mapping[str, str] = config_class.attribute_map
    plain = {key: value for key, value in data.items() if key not in aliases}
    return plain | {aliases[key]: value for key, value in data.items() if key in aliases}


def _key_problems(config: HfTextConfig, config_class: Any, model_type: str) -> Iterator[Problem]:
    aliases: Mapping[str, str] = config_class.attribute_map
    known = {field.name for field in fields(config_class)} | set(aliases)
    if "vocab_size" not in known:
        yield Problem(f"'{model_type}' is no text encoder: its config has no vocab_size", "text.config.model_type")
        return
    for key, value in config.config.items():
        if key == "model_type":
            if value != model_type:
                yield Problem(f"'{value}' is not the type '{model_type}' of '{config.name}'", f"text.config.{key}")
        elif key not in known:
            yield Problem(f"unknown key of {model_type}{did_you_mean(key, known)}", f"text.config.{key}")
        elif aliases.get(key, key) != key and aliases[key] in config.config:
            yield Problem(f"is '{aliases[key]}' by another name, which is there too", f"text.config.{key}")


def _size_problems(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield a problem for each number that no encoder has: it would be built for minutes, or fill the memory before."""
    for key, value in data.items():
        largest = MOST_LAYERS if re.search("layer|head|depth|block|stage", key) else LARGEST
        if isinstance(value, int | float) and abs(value) > largest:
            yield Problem(f"{value:g} is more than an encoder has; at most {largest:,}", f"text.config.{key}")


def _wrong(key: str, message: str) -> ConfigError:
    return ConfigError(Problem(message, f"text.{key}"))
