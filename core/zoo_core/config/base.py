"""Base of every config: strict, frozen data.

Unknown keys, wrong types, non-finite numbers and broken cross-field rules are all found in one pass. Each is reported
in one line, with the nearest name. Rules that span fields are yielded by `rules` with the key that they blame, so that
a YAML error points at a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError

from zoo_core.boundary import Contract
from zoo_core.boundary.plugin_code import maker_of, passes
from zoo_core.config.field_docs import field_docstrings
from zoo_core.config.messages import EXPLAINED, all_explained, placed, problems
from zoo_core.documents import Document
from zoo_core.errors import ConfigError, PluginError, reason
from zoo_core.registry import Registry

__all__ = ["Config"]


class Config(Contract, BaseModel):
    """Base of every config: strict types, no unknown keys, no NaN, immutable.

    Raises:
        ConfigError: on construction, with every problem found.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
    )

    other_names: ClassVar[Mapping[str, str]] = {}
    """Names that other libraries have, or had, for keys of this config: errors about them name ours."""

    if not TYPE_CHECKING:

        def __init__(self, /, **data: Any) -> None:
            try:
                super().__init__(**data)
            except ValidationError as error:
                raise ConfigError(problems(error, type(self).__name__)) from None

        # Tells pydantic that nested validation need not go through this constructor, which would lose locations.
        __init__.__pydantic_base_init__ = True

        def __setattr__(self, name: str, value: object) -> None:
            raise ConfigError(
                f"{type(self).__name__}.{name} cannot be set: configs are frozen; "
                f"name the change where the config is made, as in overrides=['{name}=...']"
            )

    @classmethod
    def parse(cls, data: Mapping[str, Any], *, registry: Registry | None = None) -> Self:
        """Validate a mapping.

        Args:
            data: keys and plain values.
            registry: where component names are looked up; the installed plugins where None.

        Raises:
            ConfigError: with every problem found.
        """
        try:
            return cls.model_validate(data, context={"registry": registry})
        except ValidationError as error:
            raise ConfigError(problems(error, cls.__name__)) from None

    @classmethod
    def from_document(cls, document: Document) -> Self:
        """Validate what a file says.

        Raises:
            ConfigError: with every problem found, each with its file, line and key.
        """
        try:
            return cls.model_validate(document.data)
        except ValidationError as error:
            raise ConfigError(placed(error, document)) from None

    def rules(self) -> Iterator[tuple[str, str]]:
        """Yield `(dotted key, what is wrong with it)` for each broken rule that spans several fields."""
        yield from ()

    def data(self) -> dict[str, Any]:
        """Return plain data that `parse` turns back into an equal config; unset optional values are left out."""
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Describe each field by the string below it."""
        described = handler(schema)
        properties = handler.resolve_ref_schema(described).get("properties", {})
        for name, text in field_docstrings(cls, Config).items():
            field = cls.model_fields.get(name)
            if field is not None and field.description is None:
                properties[name if name in properties else field.alias]["description"] = text
        return described

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            config = handler(data)
        except ValidationError as error:
            details = all_explained(cls, error)
        except Exception as error:
            if passes(error):
                raise
            raise PluginError(f"{maker_of(cls)}: its config {cls.__name__} failed: {reason(error)}") from error
        else:
            details = [
                InitErrorDetails(
                    type=PydanticCustomError(EXPLAINED, "{message}", {"message": message}),
                    loc=tuple(key.split(".")),
                    input=data,
                )
                for key, message in config.rules()
            ]
            if not details:
                return config
        raise ValidationError.from_exception_data(cls.__name__, details)
