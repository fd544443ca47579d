"""Config of the tokenizer."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from zoo_core.config import TokenIds, TokenizerConfig
from zoo_core.text.cleaning import CleaningOrNone

__all__ = ["TiktokenConfig"]


class TiktokenConfig(TokenizerConfig):
    """An encoding of tiktoken, with three ids above it: end of text, padding and start of text, in this order."""

    type: str = "tiktoken"
    """Name of the tokenizer component."""
    encoding: Annotated[str, Field(min_length=1)] = "cl100k_base"
    """Name of the encoding, as `tiktoken.get_encoding` takes it."""
    vocab_size: Annotated[int, Field(ge=4, le=100_000_000)] = 100_280
    """The largest id plus one: the encoding's own ids, and three; the loaded encoding is held to it."""
    add_bos: bool = True
    """Begin each row with the start of text."""
    add_eos: bool = True
    """End each caption, also one that is cut, with the end of text."""
    cleaning: CleaningOrNone = "none"
    """How text is normalised, as in the other tokenizers; `none` leaves it as it is."""

    def files_key(self) -> object:
        """Return the encoding."""
        return self.type, self.encoding

    def token_count(self) -> int:
        """Return the number of ids."""
        return self.vocab_size

    def token_ids(self) -> TokenIds:
        """Return the size and the special ids."""
        return TokenIds(self.type, self.vocab_size, end=self.vocab_size - 3, padding=self.vocab_size - 2)

    def text_cleaning(self) -> CleaningOrNone:
        """Return `cleaning`."""
        return self.cleaning

    def reads_special_tokens(self) -> bool:
        """Return False: they are text."""
        return False
