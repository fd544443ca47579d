"""Configs of the text tower and the tokenizer.

An architecture may hold the whole config of its encoder (`config: {model_type: bert, ...}`). Then nothing is asked of
the Hub to build it. Only the tokenizer's files have to come from there, at its first use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from zoo_core.config import TOKENIZER_FOLDER, TextTowerConfig, TokenIds, TokenizerConfig
from zoo_core.text.cleaning import CleaningOrNone
from zoo_core.text.contract import TextReading
from zoo_hf.encoder_config import encoder_config, written_out
from zoo_hf.source import HfSource, Name

__all__ = ["HfTextConfig", "HfTokenizerConfig"]

VocabSize = Annotated[int, Field(ge=2, le=100_000_000)]
TokenId = Annotated[int, Field(ge=0, le=100_000_000)]

BIDIRECTIONAL = frozenset(
    {"bert", "roberta", "xlm-roberta", "distilbert", "electra", "mpnet", "modernbert", "t5", "mt5", "m2m_100"}
)
"""Types of encoders whose tokens all see each other; of others the contract says nothing."""


class HfTextConfig(HfSource, TextTowerConfig):
    """An encoder of transformers (the encoder half of one that has two halves), pooled over the tokens, projected."""

    other_names: ClassVar[Mapping[str, str]] = {
        "hf_model_name": "name",
        "hf_model_config": "config",
        "hf_proj_type": "proj",
        "proj_type": "proj",
        "hf_pooler_type": "pool_type",
        "pooler_type": "pool_type",
    }
    tower: str = "hf-text"
    config: dict[str, Any] = {}
    """The encoder's own config, laid over the `config.json` of `name`; the whole of it, with its `model_type`, where
    there is no name. Keys that the model's config class does not have are refused."""
    pool_type: Literal["mean", "max", "cls", "cls-hidden"] = "mean"
    """How tokens become one feature: their mean or maximum, padding left out; `cls`, the encoder's own pooler over
    the first token, where it has one, else that token; `cls-hidden`, the first token."""
    proj: Literal["linear", "mlp", "none"] = "mlp"
    """How the feature becomes the embedding: one matrix, two with a GELU between them, or not at all."""
    pad_id: TokenId | None = None
    """Token id that is padding: it is masked everywhere. That of the encoder's config where null."""
    context_length: Annotated[int, Field(ge=2, le=1_048_576)] = 77
    """Number of token positions, special tokens included."""
    vocab_size: VocabSize
    """Number of token embeddings; held to the encoder's config."""

    def padding(self) -> int | None:
        """Return the id of the padding, where it is said here and not in a file of the Hub."""
        pad_id = self.config.get("pad_token_id") if self.pad_id is None else self.pad_id
        return pad_id if isinstance(pad_id, int) else None

    def reading(self) -> TextReading:
        """Return how the tower reads a row: without its padding, always."""
        bidirectional = self.config.get("model_type") in BIDIRECTIONAL and not self.config.get("is_decoder")
        return TextReading(
            fixed_length=False,
            causal=False if bidirectional else None,
            padding="masked",
            pooled_at="all kept tokens" if self.pool_type in ("mean", "max") else "first position",
        )

    def token_width(self, embed_dim: int) -> int | None:
        """Return the encoder's channels, where its config says them here and not in a file of the Hub."""
        width = self.config.get("hidden_size")
        return width if isinstance(width, int) else None

    def self_contained(self) -> Self:
        """Return the tower with the whole config of its encoder, and no name to look it up by."""
        if self.name is None:
            return self
        return self.model_copy(update={"name": None, "revision": None, "config": written_out(self.encoder_config())})

    def encoder_config(self) -> Any:
        """Return the config of transformers that the tower stands for.

        Raises:
            ConfigError: it does not fit the tower, or transformers refuses it.
            DownloadError: it cannot be had from the Hub, or is not what it was at first.
        """
        return encoder_config(self, self.config, vocab_size=self.vocab_size, pad_id=self.pad_id)

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold the encoder's config to its name and to the vocabulary."""
        yield from super().rules()
        if self.name is None and not isinstance(self.config.get("model_type"), str):
            yield (
                "config",
                "names no model_type, and there is no name to take one from; write config: {model_type: roberta, ...} "
                "or name: roberta-base",
            )
        size = self.config.get("vocab_size", self.vocab_size)
        if size != self.vocab_size:
            yield "config.vocab_size", f"{size} is not the vocab_size {self.vocab_size} of the tower; leave it out"
        if self.pad_id is not None and self.pad_id >= self.vocab_size:
            yield "pad_id", f"{self.pad_id} is none of the {self.vocab_size} token ids"


class HfTokenizerConfig(HfSource, TokenizerConfig):
    """A tokenizer of transformers (`AutoTokenizer`), open_clip's `HFTokenizer`; with `canonicalize` its SigLIP one."""

    other_names: ClassVar[Mapping[str, str]] = {
        "hf_tokenizer_name": "name",
        "clean": "cleaning",
        "tokenizer_mode": "mode",
    }
    type: str = "hf"
    """Name of the tokenizer component."""
    name: Name  # pyright: ignore[reportGeneralTypeIssues, reportIncompatibleVariableOverride]
    """A repository of the Hub, such as `bert-base-uncased`, or a folder: one that begins with `.`, `/` or `~`. A saved
    model holds the files of either, and names no folder but its own."""
    vocab_size: VocabSize
    """The largest id plus one; the loaded tokenizer is held to it."""
    pad_id: TokenId | None = None
    """Id that fills the rest of a row; the loaded tokenizer is held to it. Only its files tell where null."""
    eos_id: TokenId | None = None
    """Id that closes a caption, end of text or separator; the loaded tokenizer is held to it. Only its files tell
    where null."""
    cleaning: CleaningOrNone = "whitespace"
    """How text is normalised once it is mended: `whitespace` keeps case, `lower` and `canonicalize` do not, the latter
    also drops ASCII punctuation, as SigLIP; `none` leaves text as it is."""
    strip_sep_token: bool = False
    """Replace the token that separates sentences by padding, as CLIPA."""
    language: Name | None = None
    """Language code of the captions, such as `eng_Latn`, for tokenizers that put it into each row."""
    mode: Literal["clips"] | None = None
    """`clips`: start, caption, end and padding, with the class token in the last place of each row."""
    special_tokens_in_text: bool = False
    """Take a control token that is spelled out in a caption, such as `</s>` or `[SEP]`, for what it is, as open_clip
    does. Else it is text, as everything in a caption; where the vocabulary has no other id for it, as that of a unigram
    model, it is encoded with a space in it."""

    def self_contained(self) -> Self:
        """Return the tokenizer under the folder of its files; that of a repository keeps its name, which all have."""
        return self.model_copy(update={"name": f"./{TOKENIZER_FOLDER}"}) if self.folder() else self

    def files_key(self) -> object:
        """Return repository and revision, or the folder."""
        return self.type, self.name, self.revision

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold the special ids to the vocabulary."""
        yield from super().rules()
        for key, token in (("pad_id", self.pad_id), ("eos_id", self.eos_id)):
            if token is not None and token >= self.vocab_size:
                yield key, f"{token} is none of the {self.vocab_size} token ids"

    def token_count(self) -> int:
        """Return the number of ids."""
        return self.vocab_size

    def token_ids(self) -> TokenIds:
        """Return the size and the special ids; a separator that gives way to padding ends no caption."""
        end = None if self.strip_sep_token else self.eos_id
        return TokenIds(self.type, self.vocab_size, end=end, padding=self.pad_id)

    def text_cleaning(self) -> CleaningOrNone:
        """Return `cleaning`."""
        return self.cleaning

    def reads_special_tokens(self) -> bool:
        """Return `special_tokens_in_text`."""
        return self.special_tokens_in_text
