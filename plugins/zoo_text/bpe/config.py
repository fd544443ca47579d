"""Config of CLIP's byte-pair tokenizer.

A smaller vocabulary saves a tiny text tower most of its 49,408 embedding rows.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from zoo_core.config import TokenIds, TokenizerConfig
from zoo_core.text.cleaning import Cleaning

__all__ = ["ClipBpeConfig"]


class ClipBpeConfig(TokenizerConfig):
    """CLIP's byte-pair encoding (Radford et al. 2021), open_clip's `SimpleTokenizer`."""

    type: str = "clip-bpe"
    """Name of the tokenizer component."""
    vocab_size: Annotated[int, Field(ge=514, le=49_408)] = 49_408
    """512 byte symbols, the first `vocab_size - 514` merges, then the start and the end of text."""
    cleaning: Cleaning = "lower"
    """How text is normalised once it is mended: `lower`, as CLIP, is lower case; `whitespace` keeps case;
    `canonicalize`, as SigLIP, is lower case without ASCII punctuation."""
    special_tokens_in_text: bool = False
    """Take a `<start_of_text>` or `<end_of_text>` that is spelled out in a caption for the special id, as open_clip
    does; a tower that pools at the end of text then pools there, and does not read the rest. Else both are text."""

    def token_count(self) -> int:
        """Return the number of ids."""
        return self.vocab_size

    def token_ids(self) -> TokenIds:
        """Return the size and the special ids."""
        return TokenIds(self.type, self.vocab_size, end=self.vocab_size - 1, padding=0)

    def text_cleaning(self) -> Cleaning:
        """Return `cleaning`."""
        return self.cleaning

    def reads_special_tokens(self) -> bool:
        """Return `special_tokens_in_text`."""
        return self.special_tokens_in_text
