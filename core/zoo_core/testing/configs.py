"""Checks of a component's config."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from zoo_core.config import (
    CallbackConfig,
    CheckpointFormatConfig,
    ComponentConfig,
    DatasetConfig,
    EvaluatorConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    PreprocessConfig,
    ProcessorConfig,
    TextTowerConfig,
    TokenizerConfig,
    TowerConfig,
    VisionTowerConfig,
)
from zoo_core.plugin import Kind
from zoo_core.registry import Component, default_registry
from zoo_core.testing.failure import fail

__all__ = ["check_config", "checked_config_class"]

_BASES: dict[Kind, type[ComponentConfig]] = {
    "vision-tower": VisionTowerConfig,
    "text-tower": TextTowerConfig,
    "model": ModelConfig,
    "tokenizer": TokenizerConfig,
    "loss": LossConfig,
    "preprocessor": PreprocessConfig,
    "checkpoint-format": CheckpointFormatConfig,
    "dataset": DatasetConfig,
    "optimizer": OptimizerConfig,
    "callback": CallbackConfig,
    "evaluator": EvaluatorConfig,
}


def checked_config_class(component: Component) -> type[ComponentConfig]:
    """Return the config class of a component, which has the base of its kind and names the component by default."""
    spec = component.spec
    if spec.modality is None:
        base = _BASES[spec.kind]
    elif spec.kind.endswith("-tower"):  # a modality of a plugin declares the base of its own
        base = default_registry().modality_class(spec.modality, "tower_config", TowerConfig)
    else:
        base = default_registry().modality_class(spec.modality, "processor_config", ProcessorConfig)
    config_class = component.config_class()
    if not issubclass(config_class, base):
        module = base.__module__.removesuffix(".components").removesuffix(".training")
        fail(f"{component}: its config {spec.config} must derive from {module}.{base.__name__}")
    name = config_class.model_fields[base.selector].default
    if name != spec.name:
        fail(f"{component}: '{base.selector}' of {config_class.__name__} must default to '{spec.name}', found {name!r}")
    return config_class


def check_config(component: Component, values: Mapping[str, Any] | ComponentConfig) -> ComponentConfig:
    """Check that a config names its component, is plain data, and comes back from it unchanged.

    Returns:
        the config of `values`.
    """
    config_class = checked_config_class(component)
    config = values if isinstance(values, ComponentConfig) else config_class.parse(values)
    if not isinstance(config, config_class):
        fail(f"{component} takes a {config_class.__name__}, found a {type(config).__name__}")
    try:
        data = json.loads(json.dumps(config.data(), allow_nan=False))
    except (TypeError, ValueError) as error:
        fail(f"{component}: data() of its config is not plain data: {error}")
    if config_class.parse(data) != config:
        fail(f"{component}: its config does not come back from data(), found {data}")
    return config
