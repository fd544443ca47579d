"""Sections of a config, each validated by the component that it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, cast

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter, ValidationError, ValidationInfo
from pydantic_core import CoreSchema, InitErrorDetails, core_schema

from zoo_core.config.components import ComponentConfig
from zoo_core.config.messages import problems, wrong
from zoo_core.errors import ConfigError, ZooError, describe, one_of
from zoo_core.registry import Registry, default_registry

__all__ = ["Section"]


class Section:
    """Annotation of a config field whose `selector` key picks the component that validates the rest.

    `vision: Annotated[VisionTowerConfig, Section(VisionTowerConfig)]` accepts a mapping with a `tower` key, or a
    config object, and holds an instance of that component's own config class.

    Args:
        base: config base of the kind.
        default: component to take where the mapping names none.
    """

    def __init__(self, base: type[ComponentConfig], default: str | None = None) -> None:
        self.base = base
        self.default = default

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate through the component's own class."""
        return core_schema.with_info_plain_validator_function(
            self.validate,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda config: config.model_dump(mode="json", exclude_none=True), when_used="json"
            ),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Name the section; `zoo_core.config.json_schema` writes one alternative for each installed component."""
        return {"type": "object", "title": self.base.kind, "x-zoo-kind": self.base.kind}

    def parse(self, value: object, source: str, registry: Registry | None = None) -> ComponentConfig:
        """Validate one section on its own.

        Args:
            value: a mapping, or a config that is valid already.
            source: what to call the section in an error.
            registry: where component names are looked up; the installed plugins where None.

        Raises:
            ConfigError: with every problem found.
        """
        adapter: TypeAdapter[Any] = TypeAdapter(Annotated[Any, self])
        try:
            return adapter.validate_python(value, context={"registry": registry})
        except ValidationError as error:
            raise ConfigError(problems(error, source)) from None

    def validate(self, value: Any, info: ValidationInfo) -> ComponentConfig:
        """Return the config that pydantic is given for the section."""
        context: Mapping[str, Any] = info.context or {}
        registry: Registry = context.get("registry") or default_registry()
        if isinstance(value, self.base):
            config_class = self._config_class(value.component, registry)
            if not isinstance(value, config_class):
                message = f"'{value.component}' takes a {config_class.__name__}, found a {type(value).__name__}"
                raise _located(self.base.selector, message, value)
            return value  # it was valid when it was made
        if not isinstance(value, Mapping):
            raise wrong(f"expected a section with the key '{self.base.selector}', found {describe(value)}")
        data = dict(cast("Mapping[str, Any]", value))
        selector = self.base.selector
        name = data.get(selector, self.default)
        if name is None:
            names = {component.spec.name for component in registry.components(self.base.kind)}
            raise _located(selector, f"names no {self.base.kind}; {one_of(names)}", data)
        if not isinstance(name, str):
            raise _located(selector, f"expected a name, found {describe(name)}", data)
        config_class = self._config_class(name, registry)
        return config_class.model_validate({**data, selector: name}, context=info.context)

    def _config_class(self, name: str, registry: Registry) -> type[ComponentConfig]:
        selector = self.base.selector
        try:
            component = registry.get(self.base.kind, name)
            config_class = component.config_class()
        except ZooError as error:
            raise _located(selector, str(error), name) from None
        if not issubclass(config_class, self.base):
            raise _located(selector, f"{component}: its config class is no {self.base.__name__}", name)
        return config_class


def _located(key: str, message: str, value: Any) -> ValidationError:
    return ValidationError.from_exception_data(
        "section", [InitErrorDetails(type=wrong(message), loc=(key,), input=value)]
    )
