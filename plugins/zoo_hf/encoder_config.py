"""Configs of encoders, as published and as an architecture changes them.

transformers takes any key in a config and ignores those that mean nothing. Here the keys that an architecture writes
are compared with the fields of the model's config class. Keys in a published `config.json` are not: these files have
carried leftovers for years.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from zoo_core.boundary.library_code import library_code
from zoo_core.documents import ENCODER_CONFIG
from zoo_core.documents.json_reader import read_json
from zoo_core.errors import ConfigError, Problem, did_you_mean, reason
from zoo_hf.source import HfSource

__all__ = ["encoder_config", "refuse", "written_out"]

MOST_LAYERS, LARGEST = 4_096, 100_000_000
"""The largest numbers in a config: of layers, heads and the like, and of anything else."""


def encoder_config(source: HfSource, changes: Mapping[str, Any], *, vocab_size: int, pad_id: int | None) -> Any:
    """Return the config of transformers that a text tower stands for.

    Args:
        source: where the published `config.json` comes from, if it has a name.
        changes: keys that the architecture lays over it.
        vocab_size: number of token embeddings.
        pad_id: token id of the padding; that of the published config where None.

    Raises:
        ConfigError: no such model type, a key that it does not have or a value that it refuses, no padding token, or
            another vocabulary than the tower's.
        DownloadError: the published config cannot be had from the Hub, or is not what it was at first.
    """
    published = _published(source)
    model_type: Any = published.get("model_type", changes.get("model_type"))
    config_class = _config_class(model_type)
    problems = list(_key_problems(source, changes, config_class, model_type))
    if problems:
        raise ConfigError(problems)
    values = _by_own_names(published, config_class) | _by_own_names(changes, config_class)
    if source.name is None:
        values["vocab_size"] = vocab_size
    if pad_id is not None:
        values["pad_token_id"] = pad_id
    values.pop("auto_map", None)  # code that comes with a repository is never run
    problems = list(_size_problems(values))
    if problems:
        raise ConfigError(problems)
    with library_code(lambda cause: refuse("config", f"{model_type}: {cause}")):
        config = config_class.from_dict(values)
    if config.vocab_size != vocab_size:
        raise refuse(
            "vocab_size",
            f"the encoder '{source.name}' has {config.vocab_size} token embeddings, not {vocab_size}; "
            f"set vocab_size: {config.vocab_size}",
        )
    if config.pad_token_id is None:
        raise refuse("pad_id", f"the config of {model_type} names no padding token; set pad_id")
    return config


def written_out(config: Any) -> dict[str, Any]:
    """Return all that a config of transformers says beyond the defaults of its class, under its own names."""
    keys = {field.name for field in fields(type(config))} - {"vocab_size", "dtype", "architectures"}
    values = {key: value for key, value in config.to_diff_dict().items() if key in keys}
    return values | {"model_type": config.model_type}


def _published(source: HfSource) -> dict[str, Any]:
    """Return the `config.json` of a source, or nothing where it has no name."""
    if source.name is None:
        return {}
    path = source.fetch(("config.json",), "text") / "config.json"
    try:
        return read_json(path, ENCODER_CONFIG).data
    except ConfigError as error:
        raise refuse("name", f"'{source.name}': {reason(error)}") from None


def _config_class(model_type: Any) -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        near = did_you_mean(str(model_type), CONFIG_MAPPING.keys())
        raise refuse("config.model_type", f"transformers knows no model type '{model_type}'{near}")
    return CONFIG_MAPPING[model_type]


def _by_own_names(data: Mapping[str, Any], config_class: Any) -> dict[str, Any]:
    """Return a config without the second names that keys have, such as `num_hidden_layers` for `encoder_layers`.

    Published files hold both, and transformers would let the second one win over a change of the first.
    """
    aliases: Mapping[str, str] = config_class.attribute_map
    plain = {key: value for key, value in data.items() if key not in aliases}
    return plain | {aliases[key]: value for key, value in data.items() if key in aliases}


def _key_problems(
    source: HfSource, changes: Mapping[str, Any], config_class: Any, model_type: str
) -> Iterator[Problem]:
    aliases: Mapping[str, str] = config_class.attribute_map
    keys = {field.name for field in fields(config_class)} | set(aliases)
    if "vocab_size" not in keys:
        yield Problem(f"'{model_type}' is no text encoder: its config has no vocab_size", "text.config.model_type")
        return
    for key, value in changes.items():
        if key == "model_type":
            if value != model_type:
                yield Problem(f"'{value}' is not the type '{model_type}' of '{source.name}'", f"text.config.{key}")
        elif key not in keys:
            yield Problem(f"unknown key of {model_type}{did_you_mean(key, keys)}", f"text.config.{key}")
        elif aliases.get(key, key) != key and aliases[key] in changes:
            yield Problem(f"is '{aliases[key]}' by another name, which is there too", f"text.config.{key}")


def _size_problems(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield a problem for each number that no encoder has: it would be built for minutes, or fill the memory before."""
    for key, value in data.items():
        largest = MOST_LAYERS if re.search("layer|head|depth|block|stage", key) else LARGEST
        if isinstance(value, int | float) and abs(value) > largest:
            yield Problem(f"{value:g} is more than an encoder has; at most {largest:,}", f"text.config.{key}")


def refuse(key: str, message: str) -> ConfigError:
    """Return the error that blames a key of the text section."""
    return ConfigError(Problem(message, f"text.{key}"))
