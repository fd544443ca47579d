"""Bases of a plugin's config classes, one for each kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self, cast

from pydantic import Field

from zoo_core.config.base import Config
from zoo_core.config.fields import Size
from zoo_core.plugin import Kind
from zoo_core.text.cleaning import CleaningOrNone
from zoo_core.text.contract import TextReading

__all__ = [
    "TOKENIZER_FOLDER",
    "CheckpointFormatConfig",
    "ComponentConfig",
    "LossConfig",
    "PreprocessConfig",
    "ProcessorConfig",
    "TextTowerConfig",
    "TokenIds",
    "TokenizerConfig",
    "TowerConfig",
    "VisionTowerConfig",
]


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


class ProcessorConfig(ComponentConfig):
    """Base of the configs of what makes batches of a modality's raw inputs, such as a tokenizer."""

    modality: ClassVar[str]


class TowerConfig(ComponentConfig):
    """What the configs of towers share, whatever their modality."""

    selector: ClassVar[str] = "tower"
    modality: ClassVar[str]
    fixed_activation: ClassVar[str | None] = None
    """The activation of a tower that leaves no choice of one; None where a field `activation` chooses it."""

    def rules_for(self, embed_dim: int) -> Iterator[tuple[str, str]]:
        """Yield `(dotted key, what is wrong with it)` for each value that does not go with this `embed_dim`."""
        yield from ()

    def processor_rules(
        self, section: str, processor: ProcessorConfig, processor_section: str
    ) -> Iterator[tuple[str, str]]:
        """Yield `(dotted key of the architecture, what is wrong with it)` for each value that does not go together.

        Args:
            section: the key of this section.
            processor: the section of what makes batches for the tower.
            processor_section: its key.
        """
        yield from ()

    def attributes(self) -> dict[str, Any]:
        """Return the attributes that the tower has to bear, with their values, such as the size of its inputs."""
        return {}

    def processor_options(self, train: bool = False) -> dict[str, Any]:
        """Return what the factory of the tower's processor is called with, for evaluation or for training."""
        return {**self.attributes(), "train": train}

    def input_summary(self) -> str | None:
        """Return what inputs are, as a clause such as `images are 224 x 224 pixels`; None where that says nothing."""
        return None

    def token_width(self, embed_dim: int) -> int | None:
        """Return the channels of what `forward_tokens` gives; None where it gives none, or where it cannot be told."""
        return None

    def parameter_count(self, embed_dim: int) -> int | None:
        """Return the exact number of parameters, without building anything; None where it cannot be told."""
        return None


class VisionTowerConfig(TowerConfig):
    """Base of vision tower configs. A subclass gives `tower` its component's name as default."""

    kind: ClassVar[Kind] = "vision-tower"
    modality: ClassVar[str] = "image"

    tower: str
    """Name of the vision tower component."""
    image_size: Size
    """Height and width in pixels of the images that the tower takes."""

    def takes_patches(self) -> tuple[int, int] | None:
        """Return height and width of the patches that the tower takes in place of images; None where it takes none."""
        return None

    def processor_rules(
        self, section: str, processor: ProcessorConfig, processor_section: str
    ) -> Iterator[tuple[str, str]]:
        """Hold a preprocessor that cuts images into patches to the tower that takes them."""
        cut = processor.gives_patches() if isinstance(processor, PreprocessConfig) else None
        taken = self.takes_patches()
        if cut is None or cut == taken:
            return
        patches = "no patches" if taken is None else f"those of {taken[0]} x {taken[1]}"
        yield (
            f"{processor_section}.{'type' if taken is None else 'patch_size'}",
            f"'{processor.component}' cuts pictures into patches of {cut[0]} x {cut[1]} pixels, "
            f"but tower '{self.tower}' takes {patches}",
        )

    def attributes(self) -> dict[str, Any]:
        """Return the image size."""
        return {"image_size": self.image_size}

    def input_summary(self) -> str:
        """Say the image size."""
        height, width = self.image_size
        return f"images are {height} x {width} pixels"


class TextTowerConfig(TowerConfig):
    """Base of text tower configs. A subclass gives `tower` its component's name as default."""

    kind: ClassVar[Kind] = "text-tower"
    modality: ClassVar[str] = "text"

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

    def processor_rules(
        self, section: str, processor: ProcessorConfig, processor_section: str
    ) -> Iterator[tuple[str, str]]:
        """Hold the tower to the ids of its tokenizer, as far as they are known before it is loaded."""
        if isinstance(processor, TokenizerConfig):
            yield from ((f"{section}.{key}", message) for key, message in self.rules_with(processor.token_ids()))

    def attributes(self) -> dict[str, Any]:
        """Return context length and size of the vocabulary."""
        return {"context_length": self.context_length, "vocab_size": self.vocab_size}

    def processor_options(self, train: bool = False) -> dict[str, Any]:
        """Return the context length."""
        return {"context_length": self.context_length}

    def input_summary(self) -> str:
        """Say the context length."""
        return f"texts have at most {self.context_length} tokens"

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


class TokenizerConfig(ProcessorConfig):
    """Base of tokenizer configs. A subclass gives `type` its component's name as default."""

    kind: ClassVar[Kind] = "tokenizer"
    modality: ClassVar[str] = "text"

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


class PreprocessConfig(ProcessorConfig):
    """Base of preprocessor configs. A subclass gives `type` its component's name as default."""

    kind: ClassVar[Kind] = "preprocessor"
    modality: ClassVar[str] = "image"

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
