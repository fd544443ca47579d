"""Bases of a plugin's config classes, one for each kind of component (no torch here)."""

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
