"""Sections of modalities that plugins declare (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from zoo_core.config.components import ComponentConfig, ProcessorConfig, TowerConfig
from zoo_core.config.messages import wrong
from zoo_core.config.section import Section
from zoo_core.errors import ZooError, did_you_mean
from zoo_core.registry import Registry, default_registry

__all__ = ["KeyedValue", "ModalitySection", "section_schemas"]


class KeyedValue(NamedTuple):
    """A value of a mapping together with its key, which pydantic does not hand to validators of unknown keys."""

    key: str
    value: object
    fields: tuple[str, ...]
    """Keys that the mapping may have beside sections, for errors."""


class ModalitySection:
    """Annotation of values whose key is the section of a modality; see `Section`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate a `KeyedValue` as the section that its key stands for."""
        return core_schema.with_info_plain_validator_function(self.validate)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Say nothing; `section_schemas` lists the sections by their keys."""
        return {}

    def validate(self, value: KeyedValue, info: ValidationInfo) -> ComponentConfig:
        """Return the config of the section."""
        context: Mapping[str, Any] = info.context or {}
        registry: Registry = context.get("registry") or default_registry()
        return Section(_base(value, registry)).validate(value.value, info)


def section_schemas(registry: Registry) -> dict[str, Any]:
    """Return the JSON Schema of every section of a modality, by key."""
    schemas: dict[str, Any] = {}
    for modality in registry.modalities:
        for key, kind, what in (
            (modality.section, modality.tower_kind, f"The {modality.name} tower."),
            (modality.processor, modality.processor_kind, f"What makes batches of {modality.name} inputs."),
        ):
            schemas[key] = {"type": "object", "x-zoo-kind": kind, "description": what}
    return schemas


def _base(value: KeyedValue, registry: Registry) -> type[ComponentConfig]:
    """Return the base of the configs that may stand under a key."""
    keys = [key for modality in registry.modalities for key in (modality.section, modality.processor)]
    if value.key not in keys:
        raise wrong(f"unknown key{did_you_mean(value.key, (*value.fields, *keys))}")
    owners = [modality for modality in registry.modalities if value.key in (modality.section, modality.processor)]
    if len(owners) > 1:
        plugins = [(plugin, modality) for plugin in registry.plugins for modality in plugin.modalities]
        labels = [f"'{modality.name}' of {plugin.label}" for plugin, modality in plugins if modality in owners]
        raise wrong(f"is claimed by the modalities {' and '.join(labels)}; leave one out with ZOO_DISABLE_PLUGINS")
    name = owners[0].name
    try:
        if owners[0].section == value.key:
            return registry.modality_class(name, "tower_config", TowerConfig)
        return registry.modality_class(name, "processor_config", ProcessorConfig)
    except ZooError as error:
        raise wrong(str(error)) from None
