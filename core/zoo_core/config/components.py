"""Configs: strict, frozen data, owned by the class that each builds.

Every config derives from `Config`. Unknown keys, wrong types, non-finite numbers and broken cross-field rules are
all found in one pass, and each is told in one line with the nearest name. Rules that span fields are yielded by
`rules`, with the key that they blame, so that a YAML error points at a line.

The bases below are what a plugin's config class derives from, one for each kind of component. They import no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from zoo_core.boundary import Contract
from zoo_core.boundary.plugin_code import maker_of, passes
from zoo_core.config.messages import EXPLAINED, all_explained, placed, problems, wrong
from zoo_core.errors import ConfigError, PluginError, ZooError, describe, one_of, reason
from zoo_core.plugin import Kind
from zoo_core.text.cleaning import CleaningOrNone
from zoo_core.text.contract import TextContract, TextReading

if TYPE_CHECKING:
    from zoo_core.documents import Document
    from zoo_core.registry import Registry

__all__ = [
    "TOKENIZER_FOLDER",
    "CheckpointFormatConfig",
    "ComponentConfig",
    "Config",
    "EmbedDim",
    "LossConfig",
    "ModelConfig",
    "PreprocessConfig",
    "Ratio",
    "Section",
    "Size",
    "TextTowerConfig",
    "TokenIds",
    "TokenizerConfig",
    "TowerConfig",
    "VisionTowerConfig",
]


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
        from zoo_core.config.field_docs import field_docstrings

        found = handler(schema)
        properties = handler.resolve_ref_schema(found).get("properties", {})
        for name, text in field_docstrings(cls, Config).items():
            field = cls.model_fields.get(name)
            if field is not None and field.description is None:
                properties[name if name in properties else field.alias]["description"] = text
        return found

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


class ComponentConfig(Config):
    """Base of the configs that build a component; `selector` names the key that picks which."""

    kind: ClassVar[Kind]
    selector: ClassVar[str] = "type"
    before: ClassVar[Mapping[str, Any]] = {}
    """What was done before a key was there, where that is not its default: saved models without the key keep to it."""

    @property
    def component(self) -> str:
        """Name of the component that this config builds, qualified or not."""
        return cast("str", getattr(self, self.selector))

    def self_contained(self) -> Self:
        """Return a config of the same part that is read from here alone: a saved model holds this one.

        A config that refers to files elsewhere, such as those of a repository, writes out what they say; a tokenizer
        whose files come along (`Tokenizer.files`) names the folder that they have there (`TOKENIZER_FOLDER`).

        Raises:
            ConfigError: they are not to be had.
        """
        return self

    def local_paths(self) -> Iterator[tuple[str, str]]:
        """Yield key and value of each field that names a file or folder of this machine.

        A folder with a model, which may be somebody else's, names none but its own `TOKENIZER_FOLDER`.
        """
        yield from ()


def _as_pair(value: Any) -> tuple[int, int]:
    """Turn `224` and `[224, 336]` into a (height, width) pair."""
    told = describe(cast("object", value))
    pair = list(cast("list[Any]", value)) if isinstance(value, list | tuple) else [value, value]
    if len(pair) != 2 or any(type(side) is not int for side in pair):
        raise wrong(f"expected a size such as 224 or [224, 336], found {told}")
    if not all(1 <= side <= MAX_IMAGE_SIDE for side in pair):
        raise wrong(f"each side must be from 1 to {MAX_IMAGE_SIDE} pixels, found {told}")
    return pair[0], pair[1]


MAX_IMAGE_SIDE = 16_384

Size = Annotated[
    tuple[int, int],
    BeforeValidator(_as_pair),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": MAX_IMAGE_SIDE},
                {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 2, "maxItems": 2},
            ]
        }
    ),
]
"""Height and width in pixels: one number, or a pair."""

Ratio = Annotated[float, Field(gt=0, le=64)]
"""A width as a multiple of another."""

EmbedDim = Annotated[int, Field(ge=1, le=65_536)]
"""Width of a joint embedding space."""


class TowerConfig(ComponentConfig):
    """What the configs of vision and text towers share."""

    selector: ClassVar[str] = "tower"
    fixed_activation: ClassVar[str | None] = None
    """The activation of a tower that leaves no choice of one; None where a field `activation` chooses it."""

    def rules_for(self, embed_dim: int) -> Iterator[tuple[str, str]]:
        """Yield `(dotted key, what is wrong with it)` for each value that does not go with this `embed_dim`."""
        yield from ()

    def token_width(self, embed_dim: int) -> int | None:
        """Return the channels of what `forward_tokens` gives; None where it gives none, or where it cannot be told."""
        return None

    def parameter_count(self, embed_dim: int) -> int | None:
        """Return the exact number of parameters, without building anything; None where it cannot be told."""
        return None


class VisionTowerConfig(TowerConfig):
    """Base of vision tower configs. A subclass gives `tower` its component's name as default."""

    kind: ClassVar[Kind] = "vision-tower"

    tower: str
    """Name of the vision tower component."""
    image_size: Size
    """Height and width in pixels of the images that the tower takes."""

    def takes_patches(self) -> tuple[int, int] | None:
        """Return height and width of the patches that the tower takes in place of images; None where it takes none."""
        return None


class TextTowerConfig(TowerConfig):
    """Base of text tower configs. A subclass gives `tower` its component's name as default."""

    kind: ClassVar[Kind] = "text-tower"

    tower: str
    """Name of the text tower component."""
    context_length: Annotated[int, Field(ge=2, le=1_048_576)]
    """Number of token positions, special tokens included."""
    vocab_size: Annotated[int, Field(ge=2, le=100_000_000)]
    """Number of rows of the token embedding."""

    def rules_with(self, ids: TokenIds) -> Iterator[tuple[str, str]]:
        """Yield `(dotted key, what is wrong with it)` for each value that does not go with a tokenizer's ids."""
        if ids.count is not None and ids.count > self.vocab_size:
            yield (
                "vocab_size",
                f"{self.vocab_size} rows are too few for tokenizer '{ids.tokenizer}', "
                f"whose ids reach {ids.count - 1}; set it to at least {ids.count}",
            )
        masked = self.padding()
        if masked is not None and ids.padding not in (None, masked):
            yield "pad_id", f"{masked} is not the padding of tokenizer '{ids.tokenizer}', which is {ids.padding}"

    def padding(self) -> int | None:
        """Return the token id that the tower masks; None where it masks none, or where it cannot be told."""
        return None

    def largest_id(self, ids: TokenIds) -> int | None:
        """Return the id that must be the largest of each row, since the feature is read there; None where it is not."""
        return None

    def supports_kv_cache(self) -> bool:
        """Tell whether no token depends on later ones, and the tower offers `decode_step`."""
        return False

    def reading(self) -> TextReading:
        """Return how the tower reads a row; one that says nothing has its rows encoded whole."""
        return TextReading()


@dataclass(frozen=True)
class TokenIds:
    """What a text tower has to know of a tokenizer's ids; None is what cannot be told before it is loaded.

    Attributes:
        tokenizer: name of the tokenizer, for errors.
        count: the largest id plus one.
        end: the id that closes a caption.
        padding: the id that fills the rest of a row.
    """

    tokenizer: str
    count: int | None = None
    end: int | None = None
    padding: int | None = None


TOKENIZER_FOLDER = "tokenizer"
"""The folder, beside its config, in which a saved model holds the files of its tokenizer."""


class TokenizerConfig(ComponentConfig):
    """Base of tokenizer configs. A subclass gives `type` its component's name as default."""

    kind: ClassVar[Kind] = "tokenizer"

    type: str
    """Name of the tokenizer component."""

    def token_count(self) -> int | None:
        """Return how many ids the tokenizer can emit (the largest id plus one); None where it cannot be told."""
        return None

    def token_ids(self) -> TokenIds:
        """Return what text towers are held to; a tokenizer that knows its special ids adds them."""
        return TokenIds(self.type, self.token_count())

    def files_key(self) -> object:
        """Return what the files of the tokenizer depend on: configs that are equal in it can share them."""
        return self

    def text_cleaning(self) -> CleaningOrNone | None:
        """Return how text is normalised; None where it cannot be told."""
        return None

    def reads_special_tokens(self) -> bool | None:
        """Tell whether a special token spelled out in a caption becomes its id; None where it cannot be told."""
        return None


class PreprocessConfig(ComponentConfig):
    """Base of preprocessor configs. A subclass gives `type` its component's name as default."""

    kind: ClassVar[Kind] = "preprocessor"

    type: str
    """Name of the preprocessor component."""

    def gives_patches(self) -> tuple[int, int] | None:
        """Return height and width of the patches that pictures are cut into; None where they become images."""
        return None


class LossConfig(ComponentConfig):
    """Base of loss configs. A subclass gives `type` its component's name as default."""

    kind: ClassVar[Kind] = "loss"

    type: str
    """Name of the loss component."""


class CheckpointFormatConfig(ComponentConfig):
    """Base of checkpoint formats' configs, most of which leave nothing to choose."""

    kind: ClassVar[Kind] = "checkpoint-format"

    type: str
    """Name of the checkpoint format component."""


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
            self._validate,
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

    def _validate(self, value: Any, info: ValidationInfo) -> ComponentConfig:
        from zoo_core.registry import default_registry

        context: Mapping[str, Any] = info.context or {}
        registry: Registry = context.get("registry") or default_registry()
        if isinstance(value, self.base):
            return self._checked(value, registry)
        if not isinstance(value, Mapping):
            raise wrong(f"expected a section with the key '{self.base.selector}', found {describe(value)}")
        data = dict(cast("Mapping[str, Any]", value))
        selector = self.base.selector
        name = data.get(selector, self.default)
        if name is None:
            names = {one.spec.name for one in registry.components(self.base.kind)}
            raise _located(selector, f"names no {self.base.kind}; {one_of(names)}", data)
        if not isinstance(name, str):
            raise _located(selector, f"expected a name, found {describe(name)}", data)
        config_class = self._config_class(name, registry)
        return config_class.model_validate({**data, selector: name}, context=info.context)

    def _checked(self, config: ComponentConfig, registry: Registry) -> ComponentConfig:
        """Return a config that is valid already, if it is the one that its component takes."""
        config_class = self._config_class(config.component, registry)
        if not isinstance(config, config_class):
            message = f"'{config.component}' takes a {config_class.__name__}, found a {type(config).__name__}"
            raise _located(self.base.selector, message, config)
        return config

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


class ModelConfig(ComponentConfig):
    """Base of model configs: two towers, the tokenizer and preprocessing that belong to them, and the logit scale.

    This is a whole architecture; a subclass adds what its model needs beyond two towers.
    """

    kind: ClassVar[Kind] = "model"
    selector: ClassVar[str] = "model"

    model: str
    """Name of the model component."""
    description: str | None = None
    """One line for people."""
    embed_dim: EmbedDim
    """Width of the joint embedding space."""
    vision: Annotated[VisionTowerConfig, Section(VisionTowerConfig)]
    """The vision tower."""
    text: Annotated[TextTowerConfig, Section(TextTowerConfig)]
    """The text tower."""
    tokenizer: Annotated[TokenizerConfig, Section(TokenizerConfig)]
    """The tokenizer that the text tower was or will be trained with."""
    preprocess: Annotated[PreprocessConfig, Section(PreprocessConfig)]
    """How images become tensors."""
    max_parameters: Annotated[int, Field(ge=1)] = 10_000_000_000
    """Larger models are refused before anything is allocated; raise it to build one on purpose."""

    def parameter_count(self) -> int | None:
        """Return the exact number of parameters, without building anything; None where a tower cannot tell."""
        towers = [self.vision.parameter_count(self.embed_dim), self.text.parameter_count(self.embed_dim)]
        if any(count is None for count in towers):
            return None
        return sum(count for count in towers if count is not None) + self.own_parameter_count()

    def to_dict(self) -> dict[str, Any]:
        """Return `data()`, by the name under which libraries such as peft ask the config of any model for it."""
        return self.data()

    def self_contained(self) -> Self:
        """Return the architecture with each of its sections standing alone."""
        sections = ("vision", "text", "tokenizer", "preprocess")
        return self.model_copy(update={name: getattr(self, name).self_contained() for name in sections})

    def local_paths(self) -> Iterator[tuple[str, str]]:
        """Yield those of the sections."""
        for name in ("vision", "text", "tokenizer", "preprocess"):
            yield from ((f"{name}.{key}", path) for key, path in getattr(self, name).local_paths())

    def own_parameter_count(self) -> int:
        """Return the number of parameters outside the towers."""
        return 0

    def text_contract(self) -> TextContract:
        """Return what a caption becomes and how it is read."""
        ids = self.tokenizer.token_ids()
        return TextContract(
            **vars(self.text.reading()),
            context_length=self.text.context_length,
            pad_id=self.text.padding() if ids.padding is None else ids.padding,
            end_id=ids.end,
            cleaning=self.tokenizer.text_cleaning(),
            special_tokens_in_text=self.tokenizer.reads_special_tokens(),
        )

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold the towers to the embedding, tokenizer and preprocessing, and the size to its guard."""
        yield from super().rules()
        for section, tower in (("vision", self.vision), ("text", self.text)):
            yield from ((f"{section}.{key}", message) for key, message in tower.rules_for(self.embed_dim))
        yield from ((f"text.{key}", message) for key, message in self.text.rules_with(self.tokenizer.token_ids()))
        yield from self._patch_rules()
        count = self.parameter_count()
        if count is not None and count > self.max_parameters:
            yield "max_parameters", self.excess(count)

    def _patch_rules(self) -> Iterator[tuple[str, str]]:
        """Hold a preprocessor that cuts pictures into patches to the tower that takes them."""
        given, taken = self.preprocess.gives_patches(), self.vision.takes_patches()
        if given is None or given == taken:
            return
        told = "no patches" if taken is None else f"those of {taken[0]} x {taken[1]}"
        yield (
            "preprocess.type" if taken is None else "preprocess.patch_size",
            f"'{self.preprocess.type}' cuts pictures into patches of {given[0]} x {given[1]} pixels, "
            f"but tower '{self.vision.tower}' takes {told}",
        )

    def excess(self, count: int) -> str:
        """Return what to tell whoever wants a model of `count` parameters, which are too many."""
        return (
            f"the model would have {count:,} parameters, more than max_parameters = {self.max_parameters:,}; "
            "raise max_parameters to build it all the same"
        )
