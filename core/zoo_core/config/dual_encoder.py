"""Configs of models with a logit scale, of any modalities."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, cast

from pydantic import ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from zoo_core.config import (
    ComponentConfig,
    Config,
    EmbedDim,
    ModelConfig,
    PreprocessConfig,
    Section,
    TextTowerConfig,
    TokenizerConfig,
    VisionTowerConfig,
)
from zoo_core.config.modality_sections import KeyedValue, ModalitySection, section_schemas
from zoo_core.registry import default_registry

__all__ = [
    "AnyModalityConfig",
    "ConstructorArguments",
    "DualEncoderConfig",
    "LogitBias",
    "LogitScale",
    "LogitScaledConfig",
]

LogitScale = Annotated[float, Field(ge=-20, le=20)]
LogitBias = Annotated[float, Field(ge=-1000, le=1000)]


class LogitScaledConfig(ModelConfig):
    """Base of the configs of models that derive from `zoo_core.models.dual_encoder.DualEncoder`."""

    init_logit_scale: LogitScale = math.log(1 / 0.07)
    """Initial logarithm of the factor between cosines and logits."""
    init_logit_bias: LogitBias | None = None
    """Initial offset of the logits; the model has no logit bias where null."""
    nonscalar_logit_scale: bool = False
    """Give logit scale and bias the shape [1] instead of [] in outputs and state dicts."""

    def own_parameter_count(self) -> int:
        """Count the logit scale and, if there is one, the logit bias."""
        return 1 if self.init_logit_bias is None else 2


class DualEncoderConfig(LogitScaledConfig):
    """Base of the configs of models of images and text."""

    vision: Annotated[VisionTowerConfig, Section(VisionTowerConfig)]
    """The vision tower."""
    text: Annotated[TextTowerConfig, Section(TextTowerConfig)]
    """The text tower."""
    tokenizer: Annotated[TokenizerConfig, Section(TokenizerConfig)]
    """The tokenizer that the text tower was or will be trained with."""
    preprocess: Annotated[PreprocessConfig, Section(PreprocessConfig)]
    """How images become tensors."""


class AnyModalityConfig(LogitScaledConfig):
    """A model of any two or more modalities, whose towers share an embedding space.

    Beside the keys below it has the sections of its modalities: those of images (`vision`, `preprocess`) and of text
    (`text`, `tokenizer`), or those that plugins declare.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[ComponentConfig, ModalitySection()]]  # pyright: ignore[reportIncompatibleVariableOverride]

    model: str = "dual-encoder"

    def rules(self) -> Iterator[tuple[str, str]]:
        """Ask for two towers, and for a processor of each."""
        yield from super().rules()
        towers, processors = self.towers, self.processors
        if len(towers) < 2:
            yield "model", f"needs towers of two modalities or more, found {', '.join(towers) or 'none'}"
        for name in dict.fromkeys((*towers, *processors)):
            modality = default_registry().modality(name)
            if name not in processors:
                yield modality.processor, "required key is missing"
            if name not in towers:
                yield modality.section, "required key is missing"

    @model_validator(mode="before")
    @classmethod
    def _with_keys(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        fields = tuple(cls.model_fields)
        entries = cast("Mapping[str, Any]", data).items()
        return {key: value if key in fields else KeyedValue(key, value, fields) for key, value in entries}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """List the sections of every modality."""
        described = super().__get_pydantic_json_schema__(schema, handler)
        resolved = handler.resolve_ref_schema(described)
        resolved["properties"] = resolved.get("properties", {}) | section_schemas(default_registry())
        resolved["additionalProperties"] = False
        return described


class ConstructorArguments(Config):
    """The plain arguments of constructors, so that a wrong one is refused as a wrong key is."""

    embed_dim: EmbedDim
    quick_gelu: bool
    init_logit_scale: LogitScale
    init_logit_bias: LogitBias | None
    nonscalar_logit_scale: bool
    output_dict: bool = True
