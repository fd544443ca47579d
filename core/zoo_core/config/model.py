"""Base of model configs: a whole architecture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field

from zoo_core.config.components import (
    ComponentConfig,
    PreprocessConfig,
    ProcessorConfig,
    TextTowerConfig,
    TokenizerConfig,
    TowerConfig,
    VisionTowerConfig,
)
from zoo_core.config.fields import EmbedDim
from zoo_core.plugin import Kind
from zoo_core.text.contract import TextContract

__all__ = ["ModelConfig"]


class ModelConfig(ComponentConfig):
    """Base of model configs: towers that share an embedding space, each with what prepares its inputs.

    This is a whole architecture. A subclass declares its sections, those of images and text or others, and what its
    model needs beyond them.
    """

    kind: ClassVar[Kind] = "model"
    selector: ClassVar[str] = "model"

    model: str
    """Name of the model component."""
    description: str | None = None
    """One line for people."""
    embed_dim: EmbedDim
    """Width of the joint embedding space."""
    max_parameters: Annotated[int, Field(ge=1)] = 10_000_000_000
    """Larger models are refused before anything is allocated; raise it to build one on purpose."""

    if TYPE_CHECKING:  # sections of nearly every architecture; `towers` and `processors` hold those of any
        vision: VisionTowerConfig
        text: TextTowerConfig
        tokenizer: TokenizerConfig
        preprocess: PreprocessConfig

    def sections(self) -> Iterator[tuple[str, ComponentConfig]]:
        """Yield key and config of every section that a component stands behind."""
        for key in (*type(self).model_fields, *(self.model_extra or ())):
            section: object = getattr(self, key)
            if isinstance(section, ComponentConfig):
                yield key, section

    @property
    def towers(self) -> dict[str, TowerConfig]:
        """The sections of towers, by modality."""
        return {section.modality: section for _, section in self.sections() if isinstance(section, TowerConfig)}

    @property
    def processors(self) -> dict[str, ProcessorConfig]:
        """The sections of what prepares inputs, by modality."""
        return {section.modality: section for _, section in self.sections() if isinstance(section, ProcessorConfig)}

    def data(self) -> dict[str, Any]:
        """Return plain data that `parse` turns back into an equal config; sections follow the width."""
        data = super().data()
        first = {key: data.pop(key) for key in ("model", "description", "embed_dim") if key in data}
        return first | {key: data.pop(key) for key, _ in self.sections()} | data

    def to_dict(self) -> dict[str, Any]:
        """Return `data()`, by the name under which libraries such as peft ask the config of any model for it."""
        return self.data()

    def self_contained(self) -> Self:
        """Return the architecture with each of its sections standing alone."""
        return self.model_copy(update={key: section.self_contained() for key, section in self.sections()})

    def local_paths(self) -> Iterator[tuple[str, str]]:
        """Yield those of the sections."""
        for name, section in self.sections():
            yield from ((f"{name}.{key}", path) for key, path in section.local_paths())

    def parameter_count(self) -> int | None:
        """Return the exact number of parameters, without building anything; None where a tower cannot tell."""
        total = self.own_parameter_count()
        for tower in self.towers.values():
            count = tower.parameter_count(self.embed_dim)
            if count is None:
                return None
            total += count
        return total

    def own_parameter_count(self) -> int:
        """Return the number of parameters outside the towers."""
        return 0

    def text_contract(self) -> TextContract | None:
        """Return what a caption becomes and how it is read; None where the model reads no text."""
        if "text" not in self.towers:
            return None
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
        """Hold each tower to the embedding and to what prepares its inputs, and the size to its guard."""
        yield from super().rules()
        sections = dict(self.sections())
        towers = {key: section for key, section in sections.items() if isinstance(section, TowerConfig)}
        for key, tower in towers.items():
            yield from ((f"{key}.{inner}", message) for inner, message in tower.rules_for(self.embed_dim))
        for key, section in sections.items():
            if isinstance(section, ProcessorConfig):
                for tower_key, tower in towers.items():
                    if tower.modality == section.modality:
                        yield from tower.processor_rules(tower_key, section, key)
        count = self.parameter_count()
        if count is not None and count > self.max_parameters:
            yield "max_parameters", self.excess(count)

    def excess(self, count: int) -> str:
        """Return what to tell whoever wants a model of `count` parameters, which are too many."""
        return (
            f"the model would have {count:,} parameters, more than max_parameters = {self.max_parameters:,}; "
            "raise max_parameters to build it all the same"
        )
