"""Base of model configs: a whole architecture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field

from zoo_core.config.components import (
    ComponentConfig,
    PreprocessConfig,
    TextTowerConfig,
    TokenizerConfig,
    VisionTowerConfig,
)
from zoo_core.config.fields import EmbedDim
from zoo_core.config.section import Section
from zoo_core.plugin import Kind
from zoo_core.text.contract import TextContract

__all__ = ["ModelConfig"]


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
